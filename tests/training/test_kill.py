"""`crefjax train` as a process: killed at any moment and started again, it ends as if it had not been.

Most of the time of these runs goes into checkpoints, one after every step, so most kills fall into one.
"""

import random
import signal
import time

import numpy as np
import pytest
from helpers.training_run import arrays, ended, left_over, losses, start, write_run

pytestmark = pytest.mark.slow

STEPS = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def whole(folder):
    """An uninterrupted run."""
    status, err = ended(folder, "whole")
    assert status == 0, err
    assert left_over(folder / "whole") == []
    found = losses(folder / "whole")
    assert [row["step"] for row in found if row["kind"] == "training"] == list(range(1, STEPS + 1))
    assert [row["step"] for row in found if row["kind"] == "evaluation"] == [3, 6, 9]
    return folder / "whole"


def same(run, other):
    """Parameters to the last bit, and every line of metrics but for the clock."""
    assert losses(run) == losses(other)
    for name in ("last", "best"):
        first, second = arrays(run / name), arrays(other / name)
        assert first.keys() == second.keys()
        for key in first:
            assert np.array_equal(first[key], second[key]), (name, key)
    assert left_over(run) == []


def wait(process, until, limit=60.0):
    """Whether what is waited for came before the process ended."""
    end = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < end:
        if until():
            return True
        time.sleep(0.0005)
    return False


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def unfinished(workdir):
    """A checkpoint or weights that are just being written."""
    checkpoints = workdir / "checkpoints"
    begun = any("tmp" in path.name for path in checkpoints.iterdir()) if checkpoints.is_dir() else False
    return begun or any(workdir.glob(".crefjax-*"))


def kill_somewhere(process, workdir, how, chance):
    """Sends SIGKILL: while starting, at some moment after a step, or in the midst of writing."""
    before = lines(workdir)
    if how == "starting":
        time.sleep(chance.uniform(1.0, 3.0))
    else:
        wait(process, lambda: lines(workdir) > before)
        if how == "any":
            time.sleep(chance.uniform(0.0, 0.7))
        else:
            for _ in range(chance.randrange(3)):  # the first, or one further on
                wait(process, lambda: not unfinished(workdir))
                wait(process, lambda: unfinished(workdir))
            wait(process, lambda: unfinished(workdir))
            time.sleep(chance.uniform(0.0, 0.006))
    process.kill()
    return process.wait()


@pytest.mark.parametrize("seed", [1])
def test_a_run_killed_anywhere_ends_with_the_same_bits(folder, whole, seed):
    chance, workdir = random.Random(seed), folder / f"killed_{seed}"
    killed = 0
    for how in ("writing", "any", "writing", "starting", "writing", "any", "writing"):
        process = start(folder, workdir.name)
        status = kill_somewhere(process, workdir, how, chance)
        err = process.communicate()[1]
        killed += status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL), err
        steps = [row["step"] for row in losses(workdir) if row["kind"] == "training"]
        assert steps == list(range(1, len(steps) + 1))  # none twice, none left out
        if status == 0:
            break
    assert killed >= 3
    status, err = ended(folder, workdir.name)
    assert status == 0, err
    same(workdir, whole)


def test_a_stopped_run_saves_reports_it_and_is_resumed(folder, whole):
    workdir = folder / "stopped"
    process = start(folder, workdir.name)
    assert wait(process, lambda: lines(workdir) > 1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    messages = [line for line in err.splitlines() if "held out" not in line]
    step = max(row["step"] for row in losses(workdir) if row["kind"] == "training")
    assert messages == [
        "crefjax: SIGTERM: finishing this step and saving; send again to stop at once",
        f"stopped at step {step} of {STEPS}; the same command resumes it",
    ]
    assert step < STEPS
    assert left_over(workdir) == []
    status, err = ended(folder, workdir.name)
    assert status == 0, err
    assert err.splitlines()[0] == f"resuming from step {step} of {STEPS} in {workdir}"
    same(workdir, whole)
