"""The study of robustness: its variants, its files, and the output for pure noise against NumPy."""

import csv

import numpy as np
import pytest

from analysis.weights import robustness
from analysis.weights.robustness import denoise_noise, soft_sphere
from crefjax.inference.network import run_network
from crefjax.simulate.atoms import write_model
from crefjax.simulate.half_maps import SimulationConfig
from crefjax.simulate.phantom import phantom
from crefjax.spectral.b_factors import apply_b_factor
from crefjax.weights.store import load_weights

SETTINGS = SimulationConfig(voxel_size=2.0, resolution=6.5, seed=5, b_factor=60.0, box=40)


@pytest.fixture(scope="module")
def ways():
    return {variant.way: variant for variant in robustness.variants(phantom(120, seed=4), SETTINGS)}


def test_each_variant_is_what_its_name_says(ways):
    plain = ways["as it is"]
    turned = ways["turned by 90° about z"]
    for array, other in zip(
        (*plain.halves, plain.truth, plain.mask), (*turned.halves, turned.truth, turned.mask), strict=True
    ):
        np.testing.assert_array_equal(other[3, 39 - 7, 5], array[3, 5, 7])
    shifted = ways["shifted by 5 -3 6 voxels"]
    assert shifted.truth[10 + 5, 10 - 3, 10 + 6] == plain.truth[10, 10, 10]
    np.testing.assert_array_equal(ways["times 1000"].halves[0], plain.halves[0] * np.float32(1000))
    np.testing.assert_array_equal(ways["inverted contrast"].halves[1], -plain.halves[1])
    assert ways["inverted contrast"].sign == -1
    assert ways["with its mask"].masked
    sides = {way: variant.truth.shape[0] for way, variant in ways.items()}
    assert {way: side for way, side in sides.items() if side != len(plain.truth)} == {
        "box 1.5 times as wide": 60, "box 2 times as wide": 80, "voxels 0.6 times as wide": 66,
        "voxels 0.8 times as wide": 50, "voxels 1.25 times as wide": 32,
    }  # fmt: skip
    assert ways["voxels 0.8 times as wide"].voxel_size == pytest.approx(1.6)


def test_sharpening_multiplies_amplitudes_by_the_formula():
    x = np.arange(24)
    wave = np.broadcast_to(np.cos(2 * np.pi * 5 * x / 24), (24, 24, 24)).astype(np.float32)
    found = apply_b_factor(wave, 1.5, -40.0)
    np.testing.assert_allclose(found, wave * np.exp(40 * (5 / 24 / 1.5) ** 2 / 4), rtol=1e-4, atol=1e-5)


def test_soft_sphere_by_hand():
    inside = soft_sphere(40)
    assert inside[20, 20, 20] == 1
    assert inside[0, 20, 20] == 0
    # An edge that falls as a cosine halves at 0.4 of the box: about the volume of that sphere.
    assert inside.mean() == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.02)
    place = (np.arange(40) - 19.5) / 40
    assert inside[20, 20, 35] == pytest.approx(
        0.5 + 0.5 * np.cos(np.pi * (np.sqrt(2 * 0.0125**2 + place[35] ** 2) - 0.35) / 0.1)
    )


def test_output_for_pure_noise_matches_numpy(small_weights, ways, monkeypatch):
    """The scatter is that of many pairs of white noise, where the network leaves it white."""
    plain = ways["as it is"]
    weights = load_weights(small_weights)
    found = denoise_noise(plain.halves, plain.truth, plain.voxel_size, weights)
    side = len(plain.truth)
    inside = soft_sphere(side)
    k = np.meshgrid(*[np.fft.fftfreq(side) * side] * 3, indexing="ij")
    shell = np.floor(np.sqrt(sum(axis**2 for axis in k)) + 0.5).astype(int).ravel()

    def total(values):
        return np.bincount(shell, values.ravel())[: side // 2 + 1]

    random = np.random.default_rng(0)
    curves = []
    for _ in range(300):
        first, other = (np.fft.fftn(random.standard_normal((side,) * 3) * inside) for _ in range(2))
        curves.append(total((first * other.conj()).real) / np.sqrt(total(abs(first) ** 2) * total(abs(other) ** 2)))
    expected = np.std(curves, axis=0) / np.sqrt(28)  # the pairs of eight boxes
    with monkeypatch.context() as patch:
        patch.setattr("analysis.weights.robustness._own_output", lambda map_, *_: map_)
        white = denoise_noise(plain.halves, plain.truth, plain.voxel_size, weights)
    assert np.mean(np.array(white["scatter"])[2:] / expected[2:]) == pytest.approx(1, abs=0.1)
    assert np.mean(np.abs(np.array(white["fsc"])[2:]) > 3 * expected[2:]) < 0.1
    # The power that passes: of outputs for noise as strong as the mean of two half-maps', over that of the map's own.
    deviation = np.sqrt(np.mean([np.var(half - plain.truth.astype(np.float64)) for half in plain.halves]) / 2)
    full = (plain.halves[0] + plain.halves[1]) / 2
    offset = full.mean()

    def power(map_):
        out = run_network(weights.parameters, (map_ - offset) / full.std(), weights.config, slab=side).astype(
            np.float64
        )
        return total(abs(np.fft.fftn((out - np.average(out, weights=inside)) * inside)) ** 2)

    passed = [
        power(np.float32(deviation) * random.standard_normal(full.shape).astype(np.float32)) / power(full)
        for _ in range(4)
    ]
    np.testing.assert_allclose(np.array(found["passed"])[8:], np.mean(passed, axis=0)[8:], rtol=0.15)


def test_structure_common_to_all_outputs_for_noise_is_detected(small_weights, ways, monkeypatch):
    plain = ways["as it is"]
    side = len(plain.truth)
    wave = np.cos(2 * np.pi * 9 * np.arange(side) / side)
    added = 0.05 * float(np.std(plain.halves)) * np.broadcast_to(wave, plain.truth.shape)
    monkeypatch.setattr("analysis.weights.robustness._own_output", lambda map_, *_: map_ + added)
    found = denoise_noise(plain.halves, plain.truth, plain.voxel_size, load_weights(small_weights))
    beyond = np.abs(found["fsc"]) > 3 * np.array(found["scatter"])
    assert beyond[9]
    assert beyond[[4, 5, 6, 13, 14, 15, 16]].mean() < 0.2


def test_all_files_of_robustness_are_written(tmp_path, monkeypatch, small_weights, capsys):
    write_model(tmp_path / "one.cif", phantom(120, seed=4), (80.0, 80.0, 80.0))
    monkeypatch.setattr(robustness, "SPECIMENS", {"one.cif": SETTINGS})
    out = tmp_path / "out"
    call = [str(tmp_path), "-o", str(out), "--weights", str(small_weights)]
    assert robustness.STUDY.main(call) == 0
    with open(out / "robustness.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 14
    score = {(row["way"], row["weights"]): float(row["mean_fsc"]) for row in rows}
    # No turn, shift or scale of all shells changes an FSC; a network is indifferent to the last alone.
    for way in ("turned by 90° about z", "times 1000", "shifted by 5 -3 6 voxels"):
        assert score[way, "full map"] == pytest.approx(score["as it is", "full map"], abs=1e-4)
    assert score["times 1000", "small"] == pytest.approx(score["as it is", "small"], abs=1e-4)
    assert any("darker than the solvent" in row["notes"] for row in rows if row["way"] == "inverted contrast")
    table = (out / "robustness.md").read_text(encoding="utf-8")
    assert table.count("| one |") == 14
    assert "| warned that the half-maps hardly correlate | yes |" in table
    assert (out / "robustness.png").read_bytes().startswith(b"\x89PNG")
    assert robustness.STUDY.main(call) == 2
    assert "--overwrite" in capsys.readouterr().err
