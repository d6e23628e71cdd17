"""Plans, archives, and results of the command for a GPU. `--smoke` runs all of it on a CPU, by hand."""

import json
import os
import subprocess
import sys
import tarfile
from argparse import Namespace
from pathlib import Path

import jax
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.training.checkpoints import CheckpointMetadata, Checkpoints
from crefjax.training.config import read_config, to_json
from crefjax.training.denoising import denoising_task
from crefjax.training.loop import TrainPlan
from crefjax.training.optimizer import make_optimizer, make_schedule
from crefjax.training.step import init_state
from experiments.gpu import __main__ as command
from experiments.gpu import checkpoints as gpu_checkpoints
from experiments.gpu import runner as gpu_runner
from experiments.gpu import settings
from experiments.gpu.benchmarks import FULL, SMOKE, Benchmark, benchmarks, flops
from experiments.gpu.checkpoints import copy_checkpoint, start_from
from experiments.gpu.processes import Outcome, last_message, run_process
from experiments.gpu.results import Results, with_peak
from experiments.gpu.settings import Settings

CONFIG = """
from crefjax.training.config import default


def get_config():
    c = default()
    c.batch, c.steps, c.epoch_steps, c.average = 2, 40, 10, 0.9
    c.network.depth, c.network.down_width, c.network.up_width, c.network.last_widths = 1, 2, 2, (2,)
    c.data.source, c.data.patch = "stream", 16
    c.data.stream.phantoms = 1
    c.schedule.name, c.schedule.cycle_steps, c.schedule.warmup, c.schedule.rate = "cycles", 40, 4, 1e-3
    return c
"""


def write_config(folder, more=""):
    (folder / "config.py").write_text(CONFIG.replace("    return c", f"    {more}\n    return c"))
    return str(folder / "config.py")


def make_settings(folder, more="", **fields):
    fields_ = {
        "config": write_config(folder, more), "models": str(folder), "state": str(folder / "state"), "patch": 32,
        "changes": [], "cycle_steps": 0, "largest_rate": 2.0, "batches": [8], "output": str(folder / "run"),
    }  # fmt: skip
    return Settings(**fields_ | fields)


# Time.


def test_tests_and_benchmarks_take_at_most_a_share_of_the_time():
    limits = {"test_seconds": 90.0, "benchmark_seconds": 240.0}
    assert gpu_runner.part_seconds(Namespace(minutes=11.0, **limits), FULL) == (90.0, 240.0)
    assert gpu_runner.part_seconds(Namespace(minutes=5.0, **limits), FULL) == pytest.approx((45.0, 120.0))


@pytest.mark.parametrize(("step", "cycle", "possible", "expected"), [
    (0, 100, 250, 200), (0, 100, 50, 100), (130, 100, 60, 200), (130, 100, 175, 300), (100, 100, 0, 200),
])  # fmt: skip
def test_run_ends_at_the_end_of_a_cycle(step, cycle, possible, expected):
    assert settings.last_step(step, cycle, possible) == expected


def test_cycle_is_as_long_as_the_time_allows(tmp_path):
    base = read_config(write_config(tmp_path))
    assert settings.cycle_steps(make_settings(tmp_path, per_second=40.0), 8, 200.0, base) == 900  # 0.9 of 1000
    assert settings.cycle_steps(make_settings(tmp_path, per_second=40.0, cycle_steps=70), 8, 200.0, base) == 70
    assert settings.cycle_steps(make_settings(tmp_path), 8, 200.0, base) == 40  # unknown speed: that of the config
    assert settings.cycle_steps(make_settings(tmp_path, per_second=0.1), 8, 200.0, base) == 5  # more than its warmup
    assert settings.averaging(0.998, 1000) == 0.99
    assert settings.averaging(0.998, 6000) == 0.998


# Configuration.


def test_larger_batch_is_chosen_only_if_it_is_faster():
    def row(batch, per_second, flags=""):
        return {"batch": batch, "per_second": per_second, "flags": flags}

    assert settings.chosen([]) is None
    assert settings.chosen([{"batch": 4, "failed": "no memory"}]) is None
    rows = [row(4, 100), row(8, 120), row(16, 125), {"batch": 32, "failed": "no memory"}]
    assert settings.chosen(rows)["batch"] == 8  # 16 is only 4 % faster
    assert settings.chosen([row(4, 100), row(4, 150, "flag"), row(8, 160, "flag")]) == row(8, 160, "flag")
    assert settings.chosen([row(4, 100), row(4, 90, "flag")])["flags"] == ""


def test_learning_rate_grows_with_the_root_of_the_batch_within_bounds():
    assert [settings.rate_factor(batch, 2, 2.0) for batch in (1, 2, 4, 8, 32)] == pytest.approx([1, 1, 2**0.5, 2, 2])


def test_models_are_found_in_another_folder(tmp_path):
    for name, size in {
        "cryoem/1aaa.cif.gz": 10,
        "em/2bbb.pdb.gz": 30,
        "em/3ccc.cif.gz": 20,
        "em/4ddd.pdb.gz": 5,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    base = read_config(write_config(tmp_path)).unlock()
    assert settings.model_fields(base, tmp_path) == {}  # phantoms alone
    base.data.stream.models = "../x/cryoem/*.cif.gz,../x/docking/*.pdb.gz,../x/em/*.gz"
    base.data.stream.shares, base.data.stream.exclude = "2,1,3", "1KXP_target,3ccc"
    base.data.stream.held_out = "1T6B_target,4ddd"
    fields = settings.model_fields(base, tmp_path)
    assert fields["data.stream.models"] == f"{tmp_path}/cryoem/*.cif.gz,{tmp_path}/em/*.gz"
    assert fields["data.stream.shares"] == "2,3"
    assert (fields["data.stream.exclude"], fields["data.stream.held_out"]) == ("3ccc", "4ddd")
    assert fields["data.stream.held_out_phantoms"] == 0
    assert settings.model_fields(base, tmp_path, few=1)["data.stream.exclude"] == "3ccc,1aaa"  # 2bbb is the largest
    base.data.stream.held_out = "1T6B_target"
    assert settings.model_fields(base, tmp_path)["data.stream.held_out_phantoms"] == 4
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected models such as cryoem"):
        settings.model_fields(base, tmp_path / "empty")


def test_config_of_a_run_has_the_chosen_fields(tmp_path):
    more = "c.data.stream.held_out_patch, c.network.up_width = 128, 32"
    run_settings = make_settings(tmp_path, more, changes=["--config.losses.bias=0.5"])
    config = settings.make_config(run_settings, 8, seed=5, schedule__cycle_steps=33)
    assert (config.batch, config.data.patch, config.network.compute_dtype, config.seed) == (8, 32, "bfloat16", 5)
    assert (config.schedule.cycle_steps, config.losses.bias) == (33, 0.5)
    assert config.schedule.rate == pytest.approx(2e-3)
    # 16 · 128³ · 33 is less than 2³¹; 32 · 128³ · 33 is not.
    sides = {batch: settings.make_config(run_settings, batch).data.stream.held_out_patch for batch in (8, 16, 32)}
    assert sides == {8: 128, 16: 128, 32: 96}
    assert settings.make_config(run_settings, 8).data.stream.held_out_samples == 24
    run_settings.write(tmp_path / "settings.json")
    assert Settings.read(tmp_path / "settings.json") == run_settings


class Batches:
    def get_state(self):
        return {"seed": 1, "position": 0}


def test_checkpoint_of_another_config_provides_its_averaged_parameters(tmp_path):
    run_settings = make_settings(tmp_path, changes=["--config.optimizer.name=adam"])
    config = read_config(run_settings.config, ["--config.optimizer.clip=1.0"])
    task = denoising_task(config, truth=True)
    optimizer = make_optimizer(config, make_schedule(config, epoch_steps=10, steps=40))
    state = init_state(task.init(jax.random.key(0)), optimizer, average=True)
    state = state._replace(step=np.int32(7), average=jax.tree.map(lambda a: a + 1, state.average))
    checkpoints = Checkpoints(tmp_path / "state", keep=1)
    run = {"seconds": 60.0, "best": [0.5, 5], "evaluated": True, "worse": 0, "told": [], "before": "more"}
    checkpoints.save(7, jax.tree.map(np.asarray, state), CheckpointMetadata({"position": 14}, run, to_json(config)))
    checkpoints.close()

    copied = copy_checkpoint(run_settings, tmp_path / "first")
    assert (copied.step, copied.config) == (7, None)  # float32, and patches of 16
    new = settings.make_config(run_settings, 8)
    task = denoising_task(new, truth=True)
    schedule = make_schedule(new, epoch_steps=10, steps=40)
    plan = TrainPlan(jax.devices()[:1], 10, 40, schedule, make_optimizer(new, schedule))
    start_from(copied, new, task, plan, Batches())
    assert [path.name for path in gpu_checkpoints.newest_checkpoint(tmp_path / "first").parent.glob("[0-9]*")] == ["0"]

    continued = make_settings(tmp_path, state=str(tmp_path / "first"), changes=run_settings.changes)
    again = copy_checkpoint(continued, tmp_path / "second")
    assert (again.step, again.config.batch, again.config.schedule.rate) == (0, 8, pytest.approx(2e-3))
    assert again.saved.run["pretraining"] == "7 steps of 2 patches of 16 voxels a side; before: more"
    assert again.saved.data == {"seed": 1, "position": 0}
    checkpoints = Checkpoints(tmp_path / "second", keep=1)
    like = init_state(task.init(jax.random.key(1)), plan.optimizer, average=True)
    restored = checkpoints.restore(0, jax.tree.map(np.asarray, like))
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restored.parameters, state.average)
    jax.tree.map(np.testing.assert_array_equal, restored.average, state.average)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(restored.optimizer))
    third = make_settings(tmp_path, state=str(tmp_path / "first"), changes=run_settings.changes, new_run=True)
    assert copy_checkpoint(third, tmp_path / "third").config is None


# Archive and results.


def write_run(folder, steps=(9, 10)):
    for step in steps:
        (folder / f"checkpoints/{step}").mkdir(parents=True)
        (folder / f"checkpoints/{step}/state").write_bytes(os.urandom(3000))
    (folder / "last").mkdir()
    (folder / "last/card.json").write_text("{}")
    (folder / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"kind": "training"}\n')
    (folder / "tensorboard").mkdir()
    return folder


def test_joined_pieces_of_the_archive_restore_the_run(tmp_path):
    run, out = write_run(tmp_path / "run"), tmp_path / "out"
    out.mkdir()
    pieces = gpu_checkpoints.pack(run, out, largest=1000)
    assert [piece.name for piece in pieces] == ["run.tar.gz.00", "run.tar.gz.01", "run.tar.gz.02", "run.tar.gz.03"]
    assert all(piece.stat().st_size <= 1000 for piece in pieces)
    (tmp_path / "joined").write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    with tarfile.open(tmp_path / "joined") as archive:
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from Python 3.11.4 on
        archive.extractall(tmp_path / "again", **safe)
    files = {str(path.relative_to(tmp_path / "again")) for path in (tmp_path / "again").rglob("*") if path.is_file()}
    assert files == {"checkpoints/10/state", "last/card.json", "config.json", "metrics.jsonl"}
    state = "checkpoints/10/state"
    assert (tmp_path / "again" / state).read_bytes() == (run / state).read_bytes()
    gpu_checkpoints.pack(run, out)
    assert {path.name for path in out.iterdir()} == {"run.tar.gz", "metrics.jsonl"}
    with pytest.raises(UserError, match="expected at most 4 files"):
        gpu_checkpoints.pack(run, out, largest=500)


def test_run_is_packed_at_every_new_checkpoint(tmp_path):
    packer = gpu_checkpoints.Packer(tmp_path / "run", tmp_path)
    packer()
    assert not (tmp_path / "run.tar.gz").exists()
    run = write_run(tmp_path / "run", (3,))
    packer()
    before = (tmp_path / "run.tar.gz").read_bytes()
    packer()
    assert (tmp_path / "run.tar.gz").read_bytes() == before
    (run / "checkpoints/4").mkdir()
    packer()
    after = (tmp_path / "run.tar.gz").read_bytes()
    assert after != before
    (run / "config.json").write_text('{"batch": 4}')
    packer.last()
    assert (tmp_path / "run.tar.gz").read_bytes() != after


def test_results_are_complete_after_every_part(tmp_path, monkeypatch):
    results = Results(tmp_path)
    results.content["machine"] = {"device": "NVIDIA H200"}
    results.part("tests", "running")
    assert json.loads((tmp_path / "results.json").read_text())["parts"][0]["status"] == "running"
    results.part("tests", "failed", 12.34, "E  a | b")
    results.add("benchmarks", [{"what": "step", "dtype": "bfloat16", "seconds": 0.5, "flops": 9.89e13}])
    results.add("benchmarks", [{"what": "map", "failed": "no memory"}])
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["parts"] == [{"name": "tests", "status": "failed", "seconds": 12.3, "message": "E  a | b"}]
    text = (tmp_path / "results.md").read_text()
    assert "| tests | failed | 12 | E  a \\| b |" in text
    assert "| step | bfloat16 | 0.5 | 198 | 20.0% |  |" in text
    assert "| map |  |  |  |  | no memory |" in text

    def refused(*_):
        raise UserError("no space left")

    monkeypatch.setattr("experiments.gpu.results.write_bytes", refused)
    with pytest.raises(UserError):
        results.part("more", "running")
    assert json.loads((tmp_path / "results.json").read_text()) == content
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "results.md"}


def test_share_of_the_peak_is_given_for_known_devices():
    row = {"dtype": "float32", "seconds": 2.0, "flops": 13.4e12}
    assert with_peak(row, "NVIDIA H100 80GB HBM3") == row | {"tflops": 6.7, "of_peak": pytest.approx(0.1)}
    assert with_peak(row, "cpu") == row | {"tflops": 6.7}
    assert with_peak({"seconds": 1.0}, "NVIDIA H200") == {"seconds": 1.0}


def test_rows_of_benchmarks_have_operations_and_speed(tmp_path):
    # By hand, two operations for each of 27 taps: levels of 32³, 16³, 8³, 4³ and 2³ voxels; the bottom, of 1, is not
    # counted.
    first = 1 * 16 + 16 * 16 + 33 * 16 + 16 * 8 + 8 * 1
    below, lowest = 16 * 16 + 48 * 32 + 32 * 32, 16 * 16 + 32 * 32 + 32 * 32
    expected = 54 * (first * 32**3 + below * (16**3 + 8**3 + 4**3) + lowest * 2**3)
    assert flops(32) == pytest.approx(expected)
    models = [tmp_path / name for name in ("a.gz", "b.gz", "c.gz")]
    for size, path in enumerate(models):
        path.write_bytes(bytes(size))
    all_benchmarks = benchmarks(SMOKE._replace(few=2), models)
    assert [benchmark.module for benchmark in all_benchmarks] == [
        "whole_map", "train_step", "simulate_stream", "whole_map", "train_step",
    ]  # fmt: skip
    assert all_benchmarks[2].arguments[-3:] == ("--models", str(models[2]), str(models[0]))
    step = {"batch": 2, "dtype": "float32", "seconds": 0.5, "patches_per_second": 4.0, "device_gib": 1.5}
    result = all_benchmarks[1].result(step)
    assert result["flops"] == pytest.approx(6 * expected)
    assert (result["per_second"], result["device_gib"], result["raw"]) == (4.0, 1.5, step)
    assert Benchmark("x", "whole_map", ()).result({"failed": "no memory"})["failed"] == "no memory"


# Processes.


def run_python(tmp_path, code, **more):
    log = tmp_path / "log"
    options = {"seconds": 30.0, "log": log, "environment": os.environ} | more
    return run_process([sys.executable, "-c", code], **options), log.read_text()


def test_outcome_of_a_process_has_its_status_and_message(tmp_path):
    outcome, log = run_python(tmp_path, "print('much'); print('the end')")
    assert (outcome.status, outcome.message) == ("done", "the end")
    assert "much" in log
    outcome, log = run_python(tmp_path, "print('started', flush=True); raise ValueError('why')")
    assert (outcome.status, outcome.message) == ("failed", "ValueError: why")
    assert "much" in log  # from the previous process
    assert last_message("jax.errors.Error: one\n----\nFor simplicity\n", failed=True) == "jax.errors.Error: one"
    assert last_message("", failed=True) == ""


def test_process_past_its_limit_ends_with_all_that_it_started(tmp_path):
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); time.sleep(60)"
    )
    ticks = []
    outcome, log = run_python(tmp_path, code, seconds=1.5, grace=0.3, tick=lambda: ticks.append(1))
    assert outcome.status == "time is up"
    assert 1.5 < outcome.seconds < 10
    assert len(ticks) > 3
    state = Path(f"/proc/{log.split()[-1]}/stat")  # only on Linux; a zombie has ended too
    assert not state.exists() or state.read_text().split()[2] == "Z"


@pytest.fixture
def runner(tmp_path):
    arguments = command._parser().parse_args(
        ["--models", str(tmp_path), "-o", str(tmp_path / "out"), "--minutes", "5", "--config", write_config(tmp_path)]
    )
    return gpu_runner.Runner.start(arguments, tmp_path)


def test_failed_training_is_repeated_with_half_the_batch(runner, monkeypatch):
    calls = []

    def run(name, command, until, **more):
        calls.append((name, Settings.read(command[-1]), more["flags"]))
        (Path(calls[-1][1].output) / "checkpoints/20").mkdir(parents=True)
        return Outcome("failed" if len(calls) == 1 else "done", 1.0, "")

    monkeypatch.setattr(runner, "run", run)
    runner.rows = [{"batch": 16, "per_second": 50.0, "flags": "--some"}]
    runner._train()
    (name, first, flags), (again, second, _) = calls
    assert (name, first.batches, first.new_run, first.per_second, flags) == ("training", [16], False, 50.0, "--some")
    assert (again, second.batches, second.new_run) == ("training again", [8], True)
    assert second.state == f"{first.output}/checkpoints"
    assert (Path(gpu_runner.ROOT) / first.state).samefile(runner.arguments.state)
    assert second.until == pytest.approx(runner.end - 16)


def test_parts_without_time_are_left_out(runner, monkeypatch):
    monkeypatch.setattr(runner, "run", None)
    runner.end = 0.0
    runner._rehearse(0.0)
    runner._benchmarks(0.0)
    runner._train()
    content = json.loads((runner.arguments.output / "results.json").read_text())
    assert {part["status"] for part in content["parts"]} == {"left out"}
    assert len(content["parts"]) == len(benchmarks(FULL, [])) + 1


def test_mistakes_give_one_line(tmp_path, capsys):
    def refused(*more, models=tmp_path, message=""):
        capsys.readouterr()
        assert command.main(["--models", str(models), "-o", str(tmp_path / "out"), *map(str, more)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]

    refused(models=tmp_path / "none", message="folders of atomic models")
    refused("--state", tmp_path, message="expected checkpoints of a run")
    refused("--config", tmp_path / "none.py", message="no such file")
    refused("--minutes", "0", message="--minutes: expected a number above 0")
    refused("--batches", "0", message="whole numbers above 0")
    refused("--set", "losses.bias", message="expected FIELD=VALUE")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.json").write_text("{}")
    refused(message="exists and is not replaced")


def test_command_itself_initializes_no_device():
    """JAX reserves nearly all GPU memory when it initializes a device, and that memory is for the processes."""
    code = (
        "import experiments.gpu.__main__ as m; from experiments.gpu.benchmarks import flops; flops(32); "
        "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=command.ROOT, check=True)
