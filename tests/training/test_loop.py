"""The loop on a straight line: what it writes, how it stops, and that it goes on as if it had not."""

import contextlib
import dataclasses
import json
import math
import shutil
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toy_task import CountingBatches, Line, batch_of, config, exported, numpy_run, parameters, rows, run, source

from crefjax.errors import UserError
from crefjax.training import loop, step
from crefjax.training.loop import count_steps
from crefjax.utils.signals import exclusive_lock


def test_parameters_and_metrics_of_a_run_agree_with_numpy_adam(tmp_path):
    lines = []
    result = run(tmp_path, lines=lines, log_every=2)
    losses, evaluated, last = numpy_run(10)
    np.testing.assert_allclose(parameters(tmp_path), last, rtol=1e-4)
    trained = rows(tmp_path, "training")
    assert [row["step"] for row in trained] == [2, 4, 6, 8, 10]
    for row in trained:
        pair = losses[row["step"] - 2 : row["step"]]
        assert row["loss"] == pytest.approx(np.mean([loss for loss, _ in pair]), rel=1e-4)
        assert row["gradient_norm"] == pytest.approx(np.mean([norm for _, norm in pair]), rel=1e-4)
        assert row["epoch"] == row["step"] / 5
        assert row["rate"] == pytest.approx(0.05)
        assert row["patches_per_second"] > 0
        assert row["absolute"] > 0
    found = rows(tmp_path, "evaluation")
    assert [row["step"] for row in found] == [5, 10]
    np.testing.assert_allclose([row["loss"] for row in found], [evaluated[4], evaluated[9]], rtol=1e-4)
    assert all(set(row["entries"]) == {"entry_0", "entry_1", "entry_2"} and row["samples"] == 6 for row in found)
    assert [row["seconds"] for row in trained] == sorted(row["seconds"] for row in trained)
    best = int(np.argmin([evaluated[4], evaluated[9]]))
    assert (result.step, result.steps, result.stopped, result.best_step) == (10, 10, None, [5, 10][best])
    assert result.best_loss == pytest.approx([evaluated[4], evaluated[9]][best], rel=1e-4)
    assert result.weights == tmp_path / "best"
    assert f"step 5, held out: absolute {found[0]['absolute']:.4f}, loss {found[0]['loss']:.4f}" in lines
    assert json.loads((tmp_path / "config.json").read_text())["schedule.rate"] == 0.05


def test_without_evaluations_the_last_weights_are_the_result(tmp_path):
    for folder, data, every in (("none held out", source(held_out=0), 1), ("not asked for", source(), 0)):
        result = run(tmp_path / folder, data, evaluation__every_epochs=every, epochs=1)
        assert (result.best_loss, result.best_step) == (None, None)
        assert result.weights == tmp_path / folder / "last"
        assert not (tmp_path / folder / "best").exists()
        assert rows(tmp_path / folder, "evaluation") == []


def events(folder):
    """(tag, step, value) of TensorBoard's files, in the order they were written."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*")):
        raw, at = path.read_bytes(), 0
        while at < len(raw):  # a TFRecord: length, its checksum, the message, its checksum
            size = int.from_bytes(raw[at : at + 8], "little")
            event = Event.FromString(raw[at + 12 : at + 12 + size])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            at += 16 + size
    return found


def test_tensorboard_has_the_numbers_of_the_metrics(tmp_path):
    run(tmp_path, epochs=1)
    found = {(tag, step): value for tag, step, value in events(tmp_path / "tensorboard")}
    expected = {}
    for row in rows(tmp_path):
        numbers = {name: value for name, value in row.items() if isinstance(value, (int, float)) and name != "step"}
        expected |= {(f"{row['kind']}/{name}", row["step"]): value for name, value in numbers.items()}
    assert found.keys() == expected.keys()
    assert ("training/loss", 3) in found
    assert ("evaluation/absolute", 5) in found
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6)


def test_patience_ends_a_run_without_improvement(tmp_path):
    """Every evaluation after the second is spoiled by one."""
    count = [0]

    def worse(batch):
        count[0] += 1
        batch["y"] += 100.0 * (count[0] > 4)  # two batches an evaluation

    fields = {"epochs": 9, "evaluation__patience": 3}
    result = run(tmp_path, source(evaluated=worse), **fields)
    assert (result.step, result.best_step, result.stopped) == (25, 10, None)
    assert run(tmp_path, source(evaluated=worse), **fields).step == 25
    assert len(rows(tmp_path, "evaluation")) == 5


def test_a_held_out_loss_that_is_not_finite_is_never_the_best(tmp_path):
    count = [0]

    def spoil(batch):
        count[0] += 1
        if count[0] == 1:
            batch["y"][0] = np.nan

    result = run(tmp_path, source(evaluated=spoil))
    assert result.best_step == 10
    assert math.isfinite(result.best_loss)


def test_the_best_checkpoint_is_kept_however_old(tmp_path):
    count = [0]

    def worse(batch):
        count[0] += 1
        batch["y"] += 100.0 * (count[0] > 4)

    result = run(tmp_path, source(evaluated=worse), epochs=6, checkpoint__keep=2)
    assert result.best_step == 10
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert steps == [10, 25, 30]
    np.testing.assert_allclose(parameters(tmp_path, "best"), numpy_run(10)[2], rtol=1e-4)
    assert exported(tmp_path / "best")["step"] == 10


def test_the_time_limit_includes_earlier_parts_and_ends_with_an_evaluation(tmp_path, monkeypatch):
    """The clock goes one second a look."""
    ticks = [0.0]

    def clock():
        ticks[0] += 1.0
        return ticks[0]

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=clock))
    result = run(tmp_path, minutes=0.5, epochs=1000, epoch_steps=1000)
    assert 1 < result.step < 30
    assert [row["step"] for row in rows(tmp_path, "evaluation")] == [result.step]
    assert result.best_step == result.step
    assert run(tmp_path, minutes=0.5, epochs=1000, epoch_steps=1000).step == result.step
    more = run(tmp_path, minutes=1.0, epochs=1000, epoch_steps=1000)
    assert result.step < more.step < 60


def test_the_last_evaluation_ends_within_the_time_limit(tmp_path, monkeypatch):
    """A batch to evaluate takes five seconds, and one to train on takes one."""
    now = [0.0]
    ended = []

    def clock():
        return now[0]

    def evaluated(batch):
        now[0] += 5.0
        ended.append(now[0])

    def trained(step, batch):
        now[0] += 1.0

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=clock))
    fields = {"minutes": 1.0, "epochs": 1000}
    result = run(tmp_path, source(hook=trained, evaluated=evaluated), **fields)
    # 5 steps and an evaluation of 2 batches take 15 s; three times that is 45 s, and 5 steps more leave 10 s
    assert [row["step"] for row in rows(tmp_path, "evaluation")] == [5, 10, 15, 20]
    assert result.step == 20
    assert ended[-1] == 60.0
    assert run(tmp_path, source(hook=trained, evaluated=evaluated), **fields).step == 20


def test_only_settings_that_may_change_are_changed_on_resuming(tmp_path):
    run(tmp_path, epochs=1)
    assert run(tmp_path, epochs=2, devices=1, log_every=5).step == 10
    with pytest.raises(UserError, match=r"was started with schedule.rate = 0.05, found 0.1; resume with the first"):
        run(tmp_path, epochs=3, schedule__rate=0.1)
    with pytest.raises(UserError, match=r"was started with optimizer.name = 'adam', found 'sgd'"):
        run(tmp_path, epochs=3, optimizer__name="sgd")
    np.testing.assert_allclose(parameters(tmp_path), numpy_run(10)[2], rtol=1e-4)


def test_a_run_is_resumed_elsewhere_from_its_checkpoints_alone(tmp_path):
    """And there is a best again, even if nothing that follows is better than what was best there."""
    run(tmp_path / "here", epochs=2)
    shutil.copytree(tmp_path / "here/checkpoints", tmp_path / "there/checkpoints")
    lines = []
    result = run(tmp_path / "there", epochs=3, lines=lines)
    assert result.step == 15
    assert "resuming from step 10 of 15" in lines[0]
    assert result.weights.exists()
    assert result.weights == tmp_path / "there" / "best"
    np.testing.assert_allclose(parameters(tmp_path / "there"), numpy_run(15)[2], rtol=1e-4)
    (row,) = rows(tmp_path / "there", "evaluation")
    assert (result.best_step, result.best_loss) == (15, row["loss"])


def test_the_card_describes_the_pretraining_also_after_resuming(tmp_path, monkeypatch):
    run(tmp_path / "plain", epochs=1)
    assert "before" not in exported(tmp_path / "plain/last")["training"]
    monkeypatch.setattr(Line, "pretraining", "7 steps", raising=False)
    run(tmp_path / "run", epochs=1)
    training = exported(tmp_path / "run/last")["training"]
    assert training == "5 steps of 4 points: points near a line; before: 7 steps"
    monkeypatch.setattr(Line, "pretraining", "what has that name by now")
    run(tmp_path / "run", epochs=2)
    assert exported(tmp_path / "run/last")["training"] == training.replace("5 steps", "10 steps", 1)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(
        UserError, match=r"config\.json: cannot be written \(Is a directory\), nothing was left behind; check the disk"
    ):
        run(tmp_path)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with (
        exclusive_lock(tmp_path / ".lock", ""),
        pytest.raises(UserError, match=r"another run is training there.*another folder"),
    ):
        run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run: the folder cannot be created \(Not a directory\); choose another"):
        run(tmp_path / "file" / "run")


class Wide(Line):
    """A loss through the square of a matrix of each sample's own, of this side."""

    side = 512

    def loss(self, parameters, batch, key):
        losses, more = super().loss(parameters, batch, key)
        line = jnp.arange(self.side**2, dtype=jnp.float32).reshape(1, self.side, self.side)
        matrix = jnp.sin(losses[:, None, None] * line)
        return jnp.tanh(matrix @ matrix).mean((1, 2)), more


def test_a_step_that_does_not_fit_in_memory_is_refused_before_it_runs(tmp_path, monkeypatch):
    """The gradient of the square needs the matrix, the gradient so far and a product of the two at once, on each of
    two devices, which share a CPU's memory. Twice as much is more than any order of work takes.
    """
    samples = 4  # on both devices
    least = 3 * samples * Wide.side**2 * 4
    monkeypatch.setattr(step, "free_memory", lambda device: least - 1.0)
    with pytest.raises(UserError, match=r"batch: expected \d\.\d GiB of memory for a step of 4 points, found 0\.0"):
        run(tmp_path / "below", task=Wide(), steps=1)
    assert rows(tmp_path / "below", "training") == []
    monkeypatch.setattr(step, "free_memory", lambda device: 2.0 * least)
    assert run(tmp_path / "above", task=Wide(), steps=1, evaluation__every_epochs=0).step == 1


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="found 3 samples for 2 devices; use 2 or 4"):
        run(tmp_path / "new", source(batch=3), batch=3)
    with pytest.raises(UserError, match="this source is endless"):
        run(tmp_path / "new", epoch_steps=0)

    def unreadable():
        raise UserError("no such data")

    with pytest.raises(UserError, match="no such data"):
        run(tmp_path / "new", dataclasses.replace(source(), training=unreadable))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("fails", [False, True])
def test_iterators_that_read_ahead_are_closed_at_the_end(tmp_path, fails):
    closed = []

    class Closing(CountingBatches):
        def close(self):
            closed.append("training")

    def once():
        try:
            yield batch_of(range(4))
            if fails:
                raise UserError("a shard is damaged")
            yield batch_of(range(4, 6))
        finally:
            closed.append("held out")

    data = dataclasses.replace(source(), training=lambda: Closing(4), held_out=once)
    with pytest.raises(UserError, match="a shard is damaged") if fails else contextlib.nullcontext():
        run(tmp_path, data, epochs=1)
    assert closed == ["held out", "training"]


def test_steps_of_epochs_and_runs():
    assert count_steps(config(epoch_steps=0, batch=6, epochs=195), 55176) == (9196, 195 * 9196)
    assert count_steps(config(epoch_steps=0, epochs=3), 11) == (2, 6)
    assert count_steps(config(epoch_steps=7, steps=30), 11) == (7, 30)
    with pytest.raises(UserError, match="this source is endless"):
        count_steps(config(epoch_steps=0), None)
    with pytest.raises(UserError, match="expected at least one step"):
        count_steps(config(epochs=0), None)
