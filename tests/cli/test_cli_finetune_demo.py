"""`crefjax finetune` and `crefjax demo`, shortened, and their error messages."""

import json
import re
import signal

import mrcfile
import numpy as np
import pytest
from helpers.cli import assert_refused, error_line, read, run_crefjax, run_ok, tree, write
from reference import losses as slow_losses

from crefjax.simulate.atoms import write_model
from crefjax.simulate.phantom import phantom
from crefjax.training import config as training_config
from crefjax.training.finetune import Improvement
from crefjax.training.loop import Result
from crefjax.weights.store import load_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Write half-maps and a mask of a smooth signal in 24 x 24 x 48 voxels."""
    folder, random = tmp_path_factory.mktemp("halves"), np.random.default_rng(2)
    shape = (24, 24, 48)
    signal = random.standard_normal(shape)
    signal = 3 * sum(np.roll(signal, shift, axis) for axis in range(3) for shift in (-2, -1, 0, 1, 2)) / 5
    mask = np.zeros(shape, "f4")
    mask[1:-1, 1:-1, 1:-1] = 1
    maps = [signal + random.standard_normal(shape) for _ in range(2)]
    paths = [write(folder / f"half_{n}.mrc", map_.astype("f4")) for n, map_ in enumerate(maps, 1)]
    return [*paths, "--mask", write(folder / "mask.mrc", mask)]


def test_finetune_writes_weights_with_the_measured_improvement(workdir, halves, weights, monkeypatch):
    right = training_config.finetune_config

    def preset():
        c = right()
        c.steps, c.epoch_steps, c.data.entries.held_out_patches = 12, 6, 6
        c.schedule.rate, c.schedule.warmup = 3e-2, 0
        return c

    monkeypatch.setattr(training_config, "finetune_config", preset)
    outcome = run_ok("finetune", *halves, "--weights", weights, "-o", "tuned", "--minutes", 5, "--patch", 16)
    before, after, change, error = map(
        float,
        re.search(
            r"^FSC of denoised half-maps with the other half-map, where nothing was trained: ([\d.-]+) before, "
            r"([\d.-]+) after \(([+-][\d.]+) ± ([\d.]+)\): ",
            outcome.out,
        ).groups(),
    )
    assert after - before == pytest.approx(change, abs=2e-4)
    assert f"{outcome.out.splitlines()[-1]}" == "wrote tuned"
    assert outcome.err.startswith("fine-tuning small")
    assert "patches of 16 voxels a side" in outcome.err.splitlines()[0]
    assert outcome.err.splitlines()[1].startswith("step 0, held out")
    new, old = load_weights("tuned"), load_weights(weights)
    same = all(
        np.array_equal(new.parameters[a][b], old.parameters[a][b]) for a in old.parameters for b in ("kernel", "bias")
    )
    kept = "the old weights are kept: tuned holds those of small" in outcome.out
    assert kept == same == (not change > 1.96 * error)
    assert not kept
    assert new.card["source"] == "fine-tuned with crefjax from small"
    assert new.card["license"] == old.card["license"]
    assert new.card["fine_tuning"] in outcome.out
    assert re.match(r"(6|12) steps on one specimen; before: none", new.card["training"])
    run_ok("denoise", *halves[:2], "-o", "denoised.mrc", "--weights", "tuned")


def test_finetune_keeps_weights_that_did_not_improve(workdir, halves, weights, monkeypatch):
    def no_better(specimen, start, config, workdir, **more):
        parameters = {
            layer: {name: array + 1 for name, array in named.items()} for layer, named in start.parameters.items()
        }
        return parameters, Improvement(0.5, 0.51, 0.02, 20, 40), None

    monkeypatch.setattr("crefjax.training.finetune.finetune", no_better)
    outcome = run_ok("finetune", *halves, "--weights", weights, "-o", "tuned", "--patch", 16)
    lines = outcome.out.splitlines()
    assert lines[0].endswith("(+0.0100 ± 0.0200): no gain beyond the scatter")
    assert lines[1:] == ["the old weights are kept: tuned holds those of small", "wrote tuned"]
    new, old = load_weights("tuned"), load_weights(weights)
    assert new.card["sha256"] == old.card["sha256"]
    assert new.card["training"] == old.card["training"]
    assert new.card["fine_tuning"] == lines[0]


@pytest.mark.parametrize(
    ("more", "names"),
    [
        (["--patch", 17], ["--patch", "even", "17"]),
        (["--patch", 8], ["--patch", "16", "8"]),
        (["--seed", -1], ["--seed", "-1"]),
        (["--minutes", 0], ["--minutes"]),
        (["--weights", "nothing"], ["nothing"]),
        (["-o", "."], ["."]),
    ],
)
def test_finetune_reports_errors_in_one_line(workdir, halves, weights, more, names):
    assert_refused(workdir, "finetune", *halves, "--weights", weights, "-o", "tuned", *more, names=names)


def test_finetune_refuses_unusable_files(workdir, halves, weights):
    first, second = halves[:2]
    more = ["--weights", weights, "-o", "tuned"]
    assert_refused(workdir, "finetune", first, first, *more, names="half_1.mrc")
    assert_refused(workdir, "finetune", first, workdir / "missing.mrc", *more, names="missing.mrc")
    assert_refused(workdir, "finetune", first, second, "--mask", "missing.mrc", *more, names="missing.mrc")
    (workdir / "tuned").mkdir()
    (workdir / "tuned" / "mine.txt").write_text("mine")
    assert_refused(workdir, "finetune", *halves, *more, names=["tuned", "exists"])
    assert_refused(workdir, "finetune", *halves, *more, "--overwrite", names=["tuned"])


def check_numbers(shown, out):
    """Check the printed numbers against the written maps."""
    maps = {name: read(shown / "entry" / f"{name}.mrc")[0] for name in ("half_map_1", "half_map_2", "truth", "mask")}
    denoised = read(shown / "denoised.mrc")[0]
    full, mask = (maps["half_map_1"] + maps["half_map_2"]) / 2, maps["mask"]
    curves = [slow_losses.fsc(map_ * mask, maps["truth"] * mask)[1:-1] for map_ in (full, denoised)]
    before, after = re.search(r"mean FSC to the truth: ([\d.-]+) full map, ([\d.-]+) denoised", out).groups()
    assert float(before) == pytest.approx(curves[0].mean(), abs=2e-3)
    assert float(after) == pytest.approx(curves[1].mean(), abs=2e-3)
    better, shells = map(int, re.search(r"nearer to the truth in (\d+) of (\d+) shells", out).groups())
    assert shells == len(curves[0])
    assert abs(better - int(np.sum(curves[1] > curves[0]))) <= 1


def test_demo_uses_the_default_weights(workdir, monkeypatch):
    monkeypatch.setattr("crefjax.cli.demo._RESIDUES", 60)
    outcome = run_ok("demo", "-o", "shown")
    assert {name for name in tree(workdir / "shown") if "/" not in name} == {"demo.png", "denoised.mrc", "entry"}
    check_numbers(workdir / "shown", outcome.out)
    assert "weights truth" in outcome.err
    run_ok(
        "denoise",
        *(f"shown/entry/half_map_{n}.mrc" for n in (1, 2)),
        "--mask",
        "shown/entry/mask.mrc",
        "-o",
        "again.mrc",
    )
    np.testing.assert_array_equal(read("again.mrc")[0], read("shown/denoised.mrc")[0])


def test_demo_shows_the_result_of_a_short_training(workdir, monkeypatch, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    for name in "ab":
        write_model(models / f"{name}.cif", phantom(40, seed=3), (60.0, 60.0, 60.0))
    right = training_config.demo_config

    def preset():
        c = right()
        c.steps = c.epoch_steps = 3
        c.batch = 2
        c.network.depth, c.network.down_width, c.network.up_width, c.network.last_widths = 1, 2, 2, (2,)
        c.data.patch = 16
        c.data.stream.phantoms, c.data.stream.held_out_phantoms, c.data.stream.held_out_samples = 0, 0, 2
        c.data.stream.models, c.data.stream.held_out, c.data.stream.voxel_size = str(models / "*"), "b", (1.5, 1.5)
        return c

    monkeypatch.setattr(training_config, "demo_config", preset)
    monkeypatch.setattr("crefjax.cli.demo._RESIDUES", 60)
    outcome = run_ok("demo", "-o", "shown", "--train")
    shown = workdir / "shown"
    names = {name for name in tree(shown) if "/" not in name}
    assert names == {"demo.png", "denoised.mrc", "entry", "training", "weights"}
    assert (shown / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert load_weights(shown / "weights").config.down_width == 2
    assert not [name for name in tree(workdir) if ".crefjax-" in name or "shown" not in name]
    check_numbers(shown, outcome.out)
    assert ".crefjax-" not in outcome.text.replace("going on", "")
    assert outcome.out.splitlines()[-1].endswith("look at shown/demo.png")
    with mrcfile.open(shown / "denoised.mrc") as mrc:
        assert mrc.data.dtype == np.float32
    assert json.loads((shown / "training" / "config.json").read_text())["steps"] == 3
    assert_refused(workdir, "demo", "-o", "shown", names=["shown", "is not replaced", "--overwrite"])


def test_interrupted_demo_leaves_no_files(workdir, monkeypatch):
    def stopped(config, workdir, *more, **options):
        workdir.mkdir()
        return Result(7, 220, signal.SIGTERM, None, None, workdir / "last")

    monkeypatch.setattr("crefjax.training.loop.train", stopped)
    monkeypatch.setattr("crefjax.cli.demo._RESIDUES", 60)
    outcome = run_crefjax("demo", "-o", "shown", "--train")
    assert outcome.status == 143
    assert outcome.out == ""
    assert outcome.err.splitlines()[-1] == "stopped at step 7 of 220; nothing was written"
    assert tree(workdir) == {}


def test_demo_reports_errors_in_one_line(workdir):
    assert_refused(workdir, "demo", "--seed", -1, names=["--seed", "-1"])
    assert_refused(workdir, "demo", "--seed", 2**19, names=["--seed", str(2**19 - 1)])
    (workdir / "mine").mkdir()
    (workdir / "mine" / "notes.txt").write_text("mine")
    assert_refused(workdir, "demo", "-o", "mine", names=["mine", "is not replaced"])
    assert_refused(workdir, "demo", "-o", "mine", "--overwrite", names=["mine", "something else"])
    (workdir / "file").write_text("")
    assert_refused(workdir, "demo", "-o", "file", "--overwrite", names=["file", "something else"])
    outcome = run_crefjax("demo", "-o", workdir / "file" / "shown")
    assert "file" in error_line(outcome.err, outcome.status)
