"""What a run will take: arithmetic by hand, and a run whose steps take a known time."""

import dataclasses
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.cli import error_line, run_crefjax
from helpers.compiling import compiling
from helpers.toy_task import Line, config, source
from helpers.training_config import tiny_config
from helpers.training_run import prepare, write_entry

from crefjax.errors import UserError
from crefjax.training.plan import CompileClock, RunPlan, count_evaluations, plan_run

PLAN = RunPlan(
    samples=1200,
    held_out=60,
    batch=6,
    epoch_steps=200,
    steps=1000,
    evaluations=5,
    devices=2,
    device_kind="cpu",
    device_bytes=2**30,
    checkpoint_bytes=2**20,
    checkpoints=4,
    parameter_bytes=1_250_000,
    start_seconds=7.0,
    first_seconds=3.0,
    compile_seconds=30.0,
    step_seconds=0.3,
    measured_steps=20,
    evaluation_seconds=4.0,
    export_seconds=0.5,
    save_seconds=1.5,
    save_steps=0,
    save_minutes=0.0,
    limit_seconds=0.0,
)
EXPORTS = 6 * 0.5  # after five evaluations, and at the end


def test_the_time_is_that_of_all_parts():
    """A program that is compiled is kept, so the time of compiling it is not that of the run."""
    assert PLAN.seconds == pytest.approx(10 + 1000 * 0.3 + 5 * 4 + EXPORTS + 5 * 1.5)
    without = dataclasses.replace(PLAN, evaluations=0, evaluation_seconds=0.0)
    assert without.seconds == pytest.approx(10 + 300 + 0.5 + 5 * 1.5)


def test_checkpoints_within_epochs_are_counted():
    """Every 150 of 1,000 steps: six more. Every half minute of epochs of 60 s: ten more, of 59 s: five."""
    plain = PLAN.seconds
    assert dataclasses.replace(PLAN, save_steps=150).seconds == pytest.approx(plain + 6 * 1.5)
    assert dataclasses.replace(PLAN, save_minutes=0.5).seconds == pytest.approx(plain + 10 * 1.5)
    faster = dataclasses.replace(PLAN, step_seconds=0.295)
    assert dataclasses.replace(faster, save_minutes=0.5).seconds == pytest.approx(faster.seconds + 5 * 1.5)


def test_the_limit_of_the_config_ends_the_run():
    """It counts from the first step on."""
    assert dataclasses.replace(PLAN, limit_seconds=60.0).seconds == 67
    assert dataclasses.replace(PLAN, limit_seconds=60.0).is_limited
    assert not PLAN.is_limited
    assert dataclasses.replace(PLAN, limit_seconds=6000.0).seconds == PLAN.seconds
    assert dataclasses.replace(PLAN, limit_seconds=60.0).on_nodes(3, 2).seconds == 67


def test_more_devices_shorten_steps_and_evaluations():
    """Three samples a device take 0.3 s, so one takes 0.1; 1.25 MB go twice over a network of 1.25 GB/s: 2 ms."""
    found = PLAN.on_nodes(3, 2)
    assert (found.batch, found.steps) == (6, 1000)
    assert found.step_seconds == pytest.approx(0.102)
    assert found.seconds == pytest.approx(10 + 1000 * 0.102 + 5 * 4 / 3 + EXPORTS + 5 * 1.5)
    assert PLAN.on_nodes(1, 2).seconds == pytest.approx(PLAN.seconds)


def test_a_batch_that_does_not_divide_grows_and_takes_fewer_steps():
    found = PLAN.on_nodes(2, 4)  # 8 samples, one on each device
    assert (found.batch, found.steps) == (8, 750)
    assert found.step_seconds == pytest.approx(0.102)


def test_no_nodes_are_refused():
    with pytest.raises(UserError, match="at least one node with one device, found 0 with 2"):
        PLAN.on_nodes(0, 2)


@pytest.mark.parametrize(
    ("fields", "steps", "count"),
    [
        ({}, 10, 2),
        ({}, 11, 3),  # one after the last step
        ({"evaluation__every_epochs": 2}, 10, 1),
        ({"evaluation__every_epochs": 0}, 10, 0),
        ({"weights": "truth"}, 10, 3),  # one before the first
    ],
)
def test_evaluations_are_counted(fields, steps, count):
    assert count_evaluations(config(**fields), 5, steps) == count


def test_steps_evaluations_and_checkpoints_are_measured_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines, figures = [], []
    data = dataclasses.replace(
        source(hook=lambda *_: time.sleep(0.05), evaluated=lambda *_: time.sleep(0.02)), held_out_size=6
    )
    plan = plan_run(config(), lambda c: (Line(), data), seconds=0.3, after_evaluation=figures.append, say=lines.append)
    assert (plan.steps, plan.epoch_steps, plan.evaluations, plan.devices, plan.held_out) == (10, 5, 2, 2, 6)
    assert 0.05 <= plan.step_seconds < 0.5
    assert plan.measured_steps >= 4  # the second half
    assert 0.04 <= plan.evaluation_seconds < 0.5  # of two batches
    assert plan.parameter_bytes == 4 * 4
    assert plan.checkpoint_bytes > 3 * plan.parameter_bytes
    assert plan.device_bytes > 0
    assert len(figures) == 2
    assert list(tmp_path.iterdir()) == []


class ReadAhead:
    """Batches that take 0.05 s each, six of which are there at the beginning."""

    def __init__(self, batches):
        self.batches, self.ready = batches, time.monotonic() - 0.3

    def __next__(self):
        self.ready += 0.05
        time.sleep(max(0.0, self.ready - time.monotonic()))
        return next(self.batches)


def test_batches_that_were_read_while_a_step_was_compiled_do_not_make_steps_seem_fast():
    data = source()
    slow = dataclasses.replace(data, training=lambda: ReadAhead(data.training()))
    plan = plan_run(config(), lambda c: (Line(), slow), seconds=1.2, say=lambda line: None)
    assert plan.step_seconds >= 0.045


def test_the_first_batch_does_not_make_an_evaluation_seem_slow():
    """It takes 0.3 s, the other nine 0.01 s; two of them are measured."""
    times = iter([0.0, 0.0, 0.3, *[0.01] * 99])
    data = source(held_out=40, evaluated=lambda batch: time.sleep(next(times)))
    known = dataclasses.replace(data, held_out_size=40)
    plan = plan_run(config(), lambda c: (Line(), known), seconds=0.01, say=lambda line: None)
    assert 0.39 <= plan.evaluation_seconds < 1.5


def test_only_the_compiling_of_programs_that_are_kept_is_counted(tmp_path):
    def measure():
        jax.clear_caches()
        begin = time.monotonic()
        with CompileClock() as clock:
            jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)(np.ones((7, 5), np.float32)).block_until_ready()
        return clock.seconds, time.monotonic() - begin

    with compiling({"jax_compilation_cache_dir": str(tmp_path)}):
        seconds, elapsed = measure()
        assert 0 < seconds < elapsed
        assert measure()[0] == 0  # read from the disk


def test_without_kept_programs_nothing_is_counted():
    jax.clear_caches()
    with compiling({"jax_compilation_cache_dir": None}), CompileClock() as clock:
        jax.jit(lambda x: jnp.cos(x) @ jnp.sin(x).T)(np.ones((5, 7), np.float32)).block_until_ready()
    assert clock.seconds == 0


def test_an_evaluation_of_unknown_size_is_measured_to_its_end():
    data = source(held_out=40, evaluated=lambda *_: time.sleep(0.02))  # ten batches
    plan = plan_run(config(), lambda c: (Line(), data), seconds=0.01, say=lambda line: None)
    assert plan.held_out is None
    assert plan.evaluation_seconds >= 0.2


@pytest.mark.slow
def test_the_command_plans_a_training_on_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = [write_entry(tmp_path / "entries" / f"e{number}", seed=number) for number in range(3)]
    prepare(entries, tmp_path / "dataset", patch=16, stride=16, dtype="float32", validation=0.3)
    (tmp_path / "tiny.py").write_text(tiny_config(epochs=3, threads=1))
    before = sorted(tmp_path.rglob("*"))
    words = ("--nodes", 2, "--node-devices", 3, "--json", tmp_path.parent / "plan.json")
    outcome = run_crefjax("plan", "--config", "tiny.py", "--seconds", 0.1, *words)
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].startswith("data: 6 samples to train on, 3 held out; the dataset takes ")
    assert lines[1] == "length: 9 steps of 2 samples, 3 in an epoch"
    assert lines[-1].startswith("on 2 nodes of 3 devices as fast as these, a batch of 6: ")
    assert sorted(tmp_path.rglob("*")) == before
    assert json.loads((tmp_path.parent / "plan.json").read_text())["on_nodes"]["batch"] == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--node-devices", 3), "--node-devices: expected --nodes with it"),
        (("--nodes", 0), "--nodes: expected 1 or more, found 0"),
        (("--nodes", 2, "--node-devices", 0), "--node-devices: expected 1 or more, found 0"),
    ],
)
def test_mistakes_in_the_nodes_are_found_before_anything_is_measured(words, message):
    outcome = run_crefjax("plan", "--config", "x.py", *words)
    assert message in error_line(outcome.err, outcome.status)
