"""The study of the fall-off: its numbers against the pipeline's own, and its files."""

import csv

import numpy as np
import pytest

from analysis.weights import fall_off
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.memory_plan import plan_denoise
from crefjax.inference.request import read_request
from crefjax.io.entries import find_entry
from crefjax.io.maps import read_map
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps, write_entry
from crefjax.simulate.phantom import phantom
from crefjax.weights.store import CARD_FIELDS, load_weights, save_weights


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """A simulated entry, and its folder."""
    folder = tmp_path_factory.mktemp("entries") / "phantom"
    settings = SimulationConfig(voxel_size=2.0, resolution=6.6, seed=5, b_factor=150.0, box=48)
    write_entry(folder, simulate_half_maps(phantom(200, seed=4), settings))
    return folder


@pytest.fixture(scope="module")
def weights(small_weights, tmp_path_factory):
    """Weights for the working grid, which is that of the entry."""
    small, folder = load_weights(small_weights), tmp_path_factory.mktemp("weights") / "gridded"
    about = {field: small.card[field] for field in CARD_FIELDS} | {"grid": 3.3}
    save_weights(folder, small.parameters, small.config, about)
    return str(folder)


def slow_mean_fsc(array, truth, mask):
    """Mean FSC under a mask, relative to the levels outside it, by NumPy in float64."""
    spectra = []
    for each in (array, truth):
        outside = np.average(each, weights=1 - mask)
        spectra.append(np.fft.fftn((each.astype(np.float64) - outside) * mask))
    axis = np.fft.fftfreq(len(mask)) * len(mask)
    shell = np.rint(np.sqrt(sum(np.square(k) for k in np.meshgrid(axis, axis, axis, indexing="ij")))).astype(int)
    fsc = []
    for number in range(1, len(mask) // 2):
        a, b = (spectrum[shell == number] for spectrum in spectra)
        fsc.append(np.vdot(a, b).real / np.sqrt(np.vdot(a, a).real * np.vdot(b, b).real))
    return np.mean(fsc)


def run(entry, folder, weights, *ratios):
    call = [str(entry), "-o", str(folder), "--weights", weights, "--ratios", *map(str, ratios)]
    assert fall_off.STUDY.main(call) == 0
    with open(folder / "fall_off.csv", encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    return row


@pytest.mark.slow
def test_numbers_are_those_of_denoised_maps(entry, tmp_path, weights):
    row = run(entry, tmp_path / "first", weights, 1, 8)
    assert list(row) == ["entry", "resolution", "b_factor", "error", "as it is", "default", "1", "8"]
    assert row["entry"] == "phantom"
    assert float(row["resolution"]) == pytest.approx(6.6, rel=0.02)
    files = find_entry(entry)
    mask, truth = read_map(files.mask), read_map(files.truth).array
    request = read_request(files.half_map_1, files.half_map_2, mask, weights, scale="input")
    output = denoise_maps(request).full.array
    assert float(row["default"]) == pytest.approx(slow_mean_fsc(output, truth, mask.array), abs=1e-4)
    # The ratio at which a map is blurred by as much as by default, and that of no blur.
    squared, own = float(row["resolution"]) ** 2, float(row["b_factor"])
    ratios = [(own + plan_denoise(request).grid.blur) / squared, own / squared]
    again = list(run(entry, tmp_path / "second", weights, *ratios).values())
    assert float(again[6]) == pytest.approx(float(row["default"]), abs=1e-4)
    assert float(again[7]) == pytest.approx(float(row["as it is"]), abs=1e-4)
    assert len({row["1"], row["8"], row["default"], row["as it is"]}) == 4


def test_entry_without_truth_is_refused(entry, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("half_map_1.mrc", "half_map_2.mrc", "mask.mrc"):
        (bare / name).write_bytes((entry / name).read_bytes())
    assert fall_off.STUDY.main([str(bare), "-o", str(tmp_path / "out")]) == 2
    assert "expected an entry with truth.mrc, found none" in capsys.readouterr().err
