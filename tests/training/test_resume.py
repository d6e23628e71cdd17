"""A run that ended, by whatever, goes on as if it had not."""

import os
import signal

import pytest
from helpers.toy_task import exported, rows, run, source

pytestmark = pytest.mark.slow


def losses(folder):
    return [(row["kind"], row["step"], row["loss"]) for row in rows(folder)]


class End(BaseException):
    """Stands for a kill: nothing of the loop runs after it but what Python must."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder, average=0.5)
    return folder


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_that_ended_anywhere_ends_with_the_same_bits(tmp_path, whole, every):
    """It breaks off before every single step, and goes on each time from the newest checkpoint."""
    for last in (1, 2, 4, 5, 6, 9, 10):

        def end(step, batch, last=last):
            if step == last:
                raise End

        with pytest.raises(End):
            run(tmp_path, source(hook=end), average=0.5, checkpoint__every_steps=every)
    lines = []
    run(tmp_path, average=0.5, checkpoint__every_steps=every, lines=lines)
    assert lines[0] == f"resuming from step 9 of 10 in {tmp_path}"
    for name in ("last", "best"):
        assert exported(tmp_path / name)["parameters"] == exported(whole / name)["parameters"]
    assert losses(tmp_path) == losses(whole)


def test_lines_of_metrics_over_several_steps_are_the_same_after_resuming(tmp_path):
    """A line is the mean of the steps since the last one, those before a checkpoint between the two among them."""

    def end(step, batch):
        if step == 5:
            raise End

    run(tmp_path / "whole", log_every=3)
    with pytest.raises(End):
        run(tmp_path / "ended", source(hook=end), log_every=3, checkpoint__every_steps=2)
    run(tmp_path / "ended", log_every=3, checkpoint__every_steps=2)
    assert losses(tmp_path / "ended") == losses(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_the_resumed_run_ends_with_the_same_bits(tmp_path, whole, number, capsys):
    def ask(step, batch):
        if step == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    result = run(tmp_path, source(hook=ask), average=0.5)
    assert (result.step, result.stopped) == (3, number)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"crefjax: {signal.Signals(number).name}: finishing this step and saving; send again to stop at once"
    ]
    assert signal.getsignal(number) is before
    run(tmp_path, average=0.5)
    assert exported(tmp_path / "last")["parameters"] == exported(whole / "last")["parameters"]
    assert losses(tmp_path) == losses(whole)


def test_an_evaluation_interrupted_by_a_signal_is_repeated_on_resuming(tmp_path, whole):
    def ask(batch):
        os.kill(os.getpid(), signal.SIGTERM)

    result = run(tmp_path, source(evaluated=ask), average=0.5)
    assert (result.step, result.stopped, result.best_step) == (5, signal.SIGTERM, None)
    assert rows(tmp_path, "evaluation") == []

    def end(step, batch):
        raise End

    with pytest.raises(End):  # the evaluation is made up for, and then it is killed
        run(tmp_path, source(hook=end), average=0.5)
    run(tmp_path, average=0.5)
    assert losses(tmp_path) == losses(whole)
    assert exported(tmp_path / "best") == exported(whole / "best")


def test_remains_of_weights_of_a_killed_run_are_removed(tmp_path):
    """Killed between the two renamings, the old weights still lie under their hidden name."""
    run(tmp_path, epochs=1)
    (tmp_path / "best").rename(tmp_path / ".crefjax-0123456789abcdef.old")
    (tmp_path / ".crefjax-0123456789abcdef.tmp").mkdir()
    run(tmp_path, epochs=2)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".lock", "best", "last", "checkpoints", "config.json", "metrics.jsonl", "tensorboard"}
