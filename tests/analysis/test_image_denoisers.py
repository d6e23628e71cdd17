"""The comparison of image denoisers on small simulated sets: files, and numbers that are known."""

import csv
import json

import numpy as np
import pytest
from images.conftest import write
from matplotlib.colors import to_rgb

from analysis.images.image_denoisers import STUDY, figure
from analysis.images.methods import METHODS, Context, chosen_methods
from crefjax.errors import UserError
from crefjax.images.sets import CLEAN, EVEN, NOISY, ODD, ImageSet
from crefjax.images.simulate import ImageConfig
from crefjax.images.specimen import specimen_of_atoms
from crefjax.simulate.phantom import phantom

CURVES = [f"{name}_curve" for name in ("frc", "bias", "residual_noise", "fsc_truth", "fsc_halves")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Sets of particles, of images without particles, and of micrographs."""
    specimen, base = specimen_of_atoms(phantom(300), 4.0, 24), tmp_path_factory.mktemp("sets")
    particles = ImageConfig(4.0, 8, side=24, dose=400.0)
    configs = {
        "particles": particles,
        "empty": ImageConfig(4.0, 4, side=24, dose=400.0, seed=3, empty=True),
        "other": ImageConfig(4.0, 6, side=24, dose=400.0, seed=4),
        "micrographs": ImageConfig(4.0, 1, side=128, micrographs=True, particles=6, dose=400.0, carbon=0, crystals=0),
    }
    return {name: write(base / name, specimen, config) for name, config in configs.items()}


def test_study_writes_a_row_for_each_method_and_a_figure(folders, tmp_path):
    pytest.importorskip("sklearn")
    words = [folders["particles"], "-o", tmp_path / "out", "--methods", "Wiener,total variation", "--images", 8]
    words += ["--empty", folders["empty"], "--micrographs", folders["micrographs"], "--other", folders["other"]]
    assert STUDY.main([str(word) for word in words]) == 0
    with open(tmp_path / "out/image_denoisers.csv", encoding="utf-8") as file:
        rows = {row["method"]: {k: float(v) for k, v in row.items() if k != "method"} for row in csv.DictReader(file)}
    assert list(rows) == ["raw", "Wiener", "total variation"]
    raw = rows["raw"]
    assert (raw["bias"], raw["signal_kept"]) == (pytest.approx(0, abs=1e-6), pytest.approx(1))
    assert rows["Wiener"]["psnr"] > raw["psnr"]
    with ImageSet(folders["particles"]) as opened:
        noisy, clean = (opened.stack(name).read(slice(None)) for name in (NOISY, CLEAN))
    with ImageSet(folders["empty"]) as opened:
        nothing = opened.stack(NOISY).read(slice(None))
    expected = nothing.var((1, 2)).mean() / noisy[:4].var((1, 2)).mean()
    assert raw["noise_power"] == pytest.approx(expected, rel=1e-4)
    # Each clean image from 0 to 1, the noisy ones by one straight line of least squares.
    factor, level = np.polyfit(noisy.ravel().astype(float), clean.ravel().astype(float), 1)
    errors = [np.mean((factor * a + level - b) ** 2) / np.ptp(b) ** 2 for a, b in zip(noisy, clean, strict=True)]
    assert raw["mse"] == pytest.approx(np.mean(errors), rel=1e-3)
    with ImageSet(folders["other"]) as opened:
        noisy, clean = (opened.stack(name).read(slice(None)) for name in (NOISY, CLEAN))
    factor, level = np.polyfit(noisy.ravel().astype(float), clean.ravel().astype(float), 1)
    errors = [np.mean((factor * a + level - b) ** 2) / np.ptp(b) ** 2 for a, b in zip(noisy, clean, strict=True)]
    assert raw["other_psnr"] == pytest.approx(np.mean(-10 * np.log10(errors)), abs=1e-3)
    assert raw["other_bias"] == pytest.approx(0, abs=1e-6)
    assert rows["Wiener"]["other_bias"] > 0
    assert 0 <= raw["precision"] <= 1
    content = json.loads((tmp_path / "out/image_denoisers.json").read_text())
    assert len(content["methods"]["Wiener"]["frc_curve"]) == 13
    assert (tmp_path / "out/image_denoisers.png").stat().st_size > 10000


def test_methods_know_the_noise_of_the_images_that_they_denoise(folders):
    with ImageSet(folders["particles"]) as opened:
        even, odd = (opened.stack(name).read(slice(None)) for name in (EVEN, ODD))
        electrons = opened.record["electrons_per_pixel"]
    context = Context(4.0, even, odd)
    assert context.noise == pytest.approx(np.sqrt(1 / electrons), rel=0.05)
    half = Context(4.0, even, odd, half=True)
    assert half.noise == pytest.approx(np.sqrt(2 / electrons), rel=0.05)
    np.testing.assert_allclose(half.rings[1], 2 * context.rings[1])
    assert np.mean(context.rings[1][1:-1]) == pytest.approx(1 / electrons, rel=0.1)
    for name, method in METHODS.items():
        if name != "dictionary":
            assert method(even[:1], half).shape == (1, 24, 24)


def test_sets_of_another_kind_are_refused(folders, tmp_path, capsys):
    good = {"particles": "particles", "empty": "empty", "micrographs": "micrographs", "other": "other"}
    for changed, other, kind in (
        ("particles", "micrographs", "single particles"),
        ("particles", "empty", "single particles"),
        ("empty", "particles", "images without particles"),
        ("micrographs", "particles", "micrographs"),
        ("other", "empty", "single particles"),
    ):
        sets = {role: str(folders[name]) for role, name in (good | {changed: other}).items()}
        words = [sets["particles"], "--empty", sets["empty"], "--micrographs", sets["micrographs"]]
        words += ["--other", sets["other"]]
        assert STUDY.main([*words, "--methods", "raw", "-o", str(tmp_path / "out")]) == 2
        assert f"expected a set of {kind}, found one of another kind" in capsys.readouterr().err


def test_unknown_methods_and_weights_of_one_name_are_refused():
    with pytest.raises(UserError, match=r"expected some of raw, low-pass, .* found Gauss, median"):
        chosen_methods(["raw", "median", "Gauss"], [])
    with pytest.raises(UserError, match="found images twice"):
        chosen_methods([], ["images", "images"])
    assert list(chosen_methods(["Wiener"], ["images"])) == ["raw", "Wiener", "images"]


def test_every_method_of_the_figure_has_a_color_that_is_not_near_another():
    """In the color space CIELAB, where 20 is a difference that is seen at once."""
    color = pytest.importorskip("skimage.color")
    count = len(METHODS) + 1  # and a network
    rows = {name: dict.fromkeys(CURVES, [1.0] * 13) | {"example": np.zeros((24, 24))} for name in [*METHODS, "network"]}
    lines = figure(rows, np.zeros((24, 24)), 4.0).axes[count + 1].get_lines()[:count]
    lab = color.rgb2lab([to_rgb(line.get_color()) for line in lines])
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(count)
    assert apart.min() > 20
