"""`crefjax train`: its outputs and its error messages."""

import json
import os
import shutil
import subprocess
import sys

import jax
import mrcfile
import numpy as np
import optax
import pytest
from helpers.cli import error_line, run_crefjax, run_ok, tree, write
from helpers.training_config import tiny_config

from crefjax.data.prepare import prepare
from crefjax.training.checkpoints import Checkpoints
from crefjax.training.step import init_state
from crefjax.weights.store import load_weights

CONFIG = tiny_config()


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Make a dataset of two entries, `tiny.py`, and a finished run `run`; return the folder and the output."""
    folder = tmp_path_factory.mktemp("material")
    for number in range(2):
        random = np.random.default_rng(number)
        signal = random.standard_normal((16, 16, 48))
        (folder / f"e{number}").mkdir()
        for half in (1, 2):
            array = (signal + random.standard_normal(signal.shape)).astype("f4")
            write(folder / f"e{number}" / f"half_map_{half}.mrc", array)
        write(folder / f"e{number}" / "mask.mrc", np.ones(signal.shape, "f4"))
    entries = [folder / "e0", folder / "e1"]
    prepare(entries, folder / "dataset", patch=16, stride=16, dtype="float32", validation=0.5)
    (folder / "tiny.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outcome = run_ok("train", "--config", "tiny.py", "--workdir", "run")
    return folder, outcome


@pytest.fixture
def work(material, workdir):
    """Copy the material to the working directory."""
    shutil.copytree(material[0], workdir, dirs_exist_ok=True)
    return workdir


def train(*more, config="tiny.py", workdir="new"):
    return run_crefjax("train", "--config", config, "--workdir", workdir, *more)


@pytest.mark.slow
def test_run_writes_all_outputs_and_names_them(material):
    folder, outcome = material
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["step"]) for row in rows] == [("training", 1), ("evaluation", 1)]
    assert outcome.out == ""
    held = {name: f"{value:.4f}" for name, value in rows[1].items() if isinstance(value, float) and name != "epoch"}
    lines = [line for line in outcome.err.splitlines() if not line.startswith("training: ")]  # on a slow machine
    assert lines == [
        "step 1, held out: " + ", ".join(f"{name} {value}" for name, value in held.items()),
        f"least held-out loss {held['loss']} at step 1",
        f"trained 1 steps; weights: {folder}/run/best",
    ]
    assert list(held) == ["cref_l1", "cref_rmse", "loss"]
    assert (folder / "run/convergence.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "run/config.json").read_text())["network.down_width"] == 2
    assert list((folder / "run/tensorboard").glob("events.*"))
    assert [path.name for path in (folder / "run/checkpoints").iterdir()] == ["1"]
    assert [name for name in tree(folder / "run") if "tmp" in name] == []
    for name in ("best", "last"):
        weights = load_weights(folder / "run" / name)
        assert (
            weights.card["training"] == "1 steps of 2 patches of 16 voxels a side: 3 patches of a prepared dataset"
            " of half-maps"
        )
        assert weights.card["losses"] == {"cref_l1": 1.0}


def test_trained_weights_denoise_a_map(work):
    run_ok("denoise", "e0/half_map_1.mrc", "e0/half_map_2.mrc", "-o", "denoised.mrc", "--weights", "run/best")
    with mrcfile.open("denoised.mrc") as mrc:
        assert mrc.data.shape == (16, 16, 48)
        assert np.isfinite(mrc.data).all()


def test_finished_run_is_not_repeated(work):
    before = load_weights("run/last").parameters
    metrics = (work / "run/metrics.jsonl").read_text()
    outcome = run_ok("train", "--config", "tiny.py", "--workdir", "run")
    assert outcome.err.splitlines()[0] == f"resuming from step 1 of 1 in {work}/run"
    assert (work / "run/metrics.jsonl").read_text() == metrics
    after = load_weights("run/last").parameters
    assert all(np.array_equal(before[a][b], after[a][b]) for a in before for b in before[a])


@pytest.mark.parametrize(
    ("more", "names"),
    [
        (["--config.bach=3"], ["bach", "batch"]),
        (["--config.batch=many"], ["--config.batch=many"]),
        (["--config.schedule.rate=nan"], ["schedule.rate", "finite"]),
        (["--batch=3"], ["--batch"]),
        (["more"], ["more"]),
        (["--config.batch=3", "--config.devices=2"], ["batch", "3 samples for 2 devices", "use 2 or 4"]),
        (["--config.devices=3", "--config.batch=3"], ["devices: expected 3, found 2", "XLA_FLAGS"]),
        (["--config.batch=8"], ["at least a batch of 8 patches", "found 3"]),
        (["--config.network.depth=0"], ["network", "at least 1"]),
        (["--config.losses.cref_l1=0.0"], ["losses", "weight above 0"]),
        (["--config.losses.truth_fsc=1.0"], ["losses.truth_fsc", "a truth"]),
        (["--config.weights=nothing"], ["nothing"]),
        (["--config.weights=run/best", "--config.network.depth=2"], ["run/best", "depth=2", "depth=1"]),
        (["--config.data.dataset.folder=e0"], ["e0"]),
        (["--config.data.source=stream"], ["data.stream"]),
        (["--config.data.source=entries"], ["data.entries.folders"]),
        (["--config.epochs=0"], ["steps"]),
        (["--config.seed=4294967296"], ["seed"]),
    ],
)
def test_mistakes_are_one_line(work, more, names):
    outcome = train(*more)
    message = error_line(outcome.err, outcome.status)
    for name in names:
        assert name in message, message
    assert not (work / "new/metrics.jsonl").exists() or not (work / "new/metrics.jsonl").read_text()


def test_missing_platform_is_reported_in_one_line(work):
    """The command runs in a process, as the platform can be chosen only once."""
    more = ["--config.platform=gpu"]
    argv = [sys.executable, "-m", "crefjax", "train", "--config", "tiny.py", "--workdir", "new", *more]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ | {"JAX_PLATFORMS": ""})
    assert "platform" in error_line(ended.stderr, ended.returncode)


def test_invalid_config_files_are_refused(work):
    (work / "wrong.py").write_text(CONFIG.replace("c.batch = 2", "c.batch = 'two'"))
    (work / "raising.py").write_text("raise ValueError('no\\nway')")
    for config, name in (("missing.py", "no such file"), ("wrong.py", "batch"), ("raising.py", "no way")):
        outcome = train(config=config)
        message = error_line(outcome.err, outcome.status)
        assert config in message
        assert name in message
    assert not (work / "new").exists()


@pytest.mark.parametrize("words", [["--workdir", "new"], ["--config", "tiny.py"]])
def test_config_and_workdir_are_required(work, words):
    outcome = run_crefjax("train", *words)
    assert "required" in error_line(outcome.err, outcome.status)


def test_changed_config_is_refused_except_more_epochs(work):
    before = tree(work / "run/checkpoints")
    outcome = train("--config.schedule.rate=0.1", workdir="run")
    message = error_line(outcome.err, outcome.status)
    assert "run: the run was started with schedule.rate = 0.0003, found 0.1; resume with the first value, or" in message
    assert tree(work / "run/checkpoints") == before
    outcome = train("--config.epochs=2", "--config.log_every=2", workdir="run")
    assert outcome.status == 0, outcome.err
    assert "trained 2 steps" in outcome.err


def test_damaged_checkpoint_is_reported_in_one_line(work):
    files = [path for path in (work / "run/checkpoints").rglob("*") if path.is_file()]
    for file in sorted(files, key=lambda path: path.stat().st_size)[-3:]:
        raw = file.read_bytes()
        file.write_bytes(raw[: len(raw) // 3])
    outcome = train("--config.epochs=2", workdir="run")
    assert f"{work}/run/checkpoints/1: the checkpoint cannot be read" in error_line(outcome.err, outcome.status)


def test_checkpoint_of_another_network_is_reported_in_one_line(work):
    """The config of the run is changed after it."""
    checkpoints = Checkpoints(work / "run/checkpoints", keep=3)
    parameters = load_weights("run/last").parameters
    wider = jax.tree.map(lambda array: np.zeros((*array.shape[:-1], array.shape[-1] + 1), "f4"), parameters)
    state = jax.tree.map(np.asarray, init_state(wider, optax.adam(3e-4), average=False))
    checkpoints.save(2, state, checkpoints.metadata(1))
    checkpoints.close()
    outcome = train("--config.epochs=3", workdir="run")
    message = error_line(outcome.err, outcome.status)
    assert f"{work}/run/checkpoints/2: expected the array " in message
    assert "to be of shape (2,), found (3,): the checkpoint has another architecture" in message


def test_repeated_nonfinite_loss_is_reported_in_one_line(work):
    """With a huge rate the network's output exceeds float32 after one step, and three of four steps are skipped."""
    outcome = train("--config.schedule.rate=1e30", "--config.epochs=4", "--config.checkpoint.every_steps=1")
    message = error_line(outcome.err, outcome.status)
    assert "of step 4 is not finite, with data of e" in message
    assert "new: the " in message
    warnings = [line for line in outcome.err.splitlines() if line.startswith("warning: the ")]
    assert [line.split(" of step ")[1][0] for line in warnings] == ["2", "3"]
    assert all(line.endswith("; this step changes nothing") for line in warnings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "kib", "what"),
    [
        (["--config.evaluation.every_epochs=0"], 4, "run/checkpoints: the checkpoint of step 2 cannot be written"),
        ([], 20, "run: cannot be written"),  # the figure
    ],
)
def test_full_disk_is_reported_and_earlier_checkpoints_are_whole(work, more, kib, what):
    argv = ["-m", "crefjax", "train", "--config", "tiny.py", "--workdir", "run", "--config.epochs=2", *more]
    limited = ["bash", "-c", f'ulimit -f {kib}; trap "" XFSZ; exec "$@"', "bash", sys.executable, *argv]
    before = tree(work / "run/checkpoints")
    ended = subprocess.run(limited, capture_output=True, text=True, check=False)
    message = error_line(ended.stderr, ended.returncode)
    assert f"{work}/{what} (File too large); make room and start again with the same command" in message
    assert {name: what for name, what in tree(work / "run/checkpoints").items() if "tmp" not in name} == before
    outcome = train("--config.epochs=2", workdir="run")
    assert outcome.status == 0, outcome.err
    assert [name for name in tree(work / "run") if "tmp" in name] == []
