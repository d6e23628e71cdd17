"""C_ref against the true FSC: the files of the study, recomputed with NumPy from its entries."""

import csv
import json
from collections import defaultdict

import jax
import mrcfile
import numpy as np
import pytest
from reference.spectra import fsc as numpy_fsc

from analysis.validation import cref
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.simulate.imaging import Particles
from crefjax.simulate.phantom import phantom
from crefjax.simulate.reconstruction import reconstruct_signal_and_noise

SMALL = [
    *("phantom", "--residues", "60", "--box", "32", "--voxel-size", "2", "--resolution", "6"),
    *("--particles", "60", "--refinements", "0"),
]
PDB = "ATOM  {:5d}  CA  ALA A{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00 30.00           {}\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of a study of the phantom by both methods."""
    folder = tmp_path_factory.mktemp("study") / "cref"
    assert cref.STUDY.main([*SMALL, "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def table(study):
    """The CSV: for each method, a column of floats by name."""
    columns = defaultdict(lambda: defaultdict(list))
    with open(study / "cref.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert row.pop("model") == "phantom"
            method = columns[row.pop("method")]
            for name, value in row.items():
                method[name].append(float(value))
    return {method: {name: np.array(values) for name, values in curves.items()} for method, curves in columns.items()}


def shells_of(side):
    k = np.fft.fftfreq(side, 1 / side)
    return np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int)


def maps_of(study, method):
    names = ("half_map_1", "half_map_2", "mask", "truth")
    return [mrcfile.read(study / "entries" / f"phantom_{method}" / f"{name}.mrc").astype("f8") for name in names]


@pytest.mark.parametrize("method", ["additive", "reconstruction"])
def test_table_matches_numpy(study, table, method):
    first, second, mask, truth = maps_of(study, method)
    found = table[method]
    fsc = numpy_fsc(first * mask, second * mask)
    true = numpy_fsc((first + second) / 2 * mask, truth * mask)
    np.testing.assert_array_equal(found["shell"], np.arange(17))
    np.testing.assert_allclose(found["frequency"], np.arange(17) / 64, rtol=1e-6)
    np.testing.assert_allclose(found["fsc_half"], fsc, atol=1e-6)
    np.testing.assert_allclose(found["fsc_truth"], true, atol=1e-6)
    h = np.maximum(fsc, 0)
    np.testing.assert_allclose(found["cref"], np.sqrt(2 * h / (1 + h)), atol=1e-3)
    np.testing.assert_array_equal(found["voxels"], np.bincount(shells_of(32).ravel())[:17])
    z = np.arctanh(np.clip(fsc, -1, 1 - 1e-12))
    for name, sign in (("low", -1), ("high", 1)):
        h = np.tanh(z + sign * 1.96 / np.sqrt(found["independent"]))
        np.testing.assert_allclose(found[name], np.sign(h) * np.sqrt(2 * abs(h) / (1 + abs(h))), atol=1e-3)
    inner = slice(1, 16)
    outside = (true < found["low"]) | (true > found["high"])
    np.testing.assert_array_equal(outside[inner], (np.abs(found["deviation"]) > 1.96)[inner])


@pytest.mark.parametrize("method", ["additive", "reconstruction"])
def test_cref_holds_within_the_scatter(study, method):
    summary = json.loads((study / "cref.json").read_text())["summary"][f"phantom {method}"]
    assert summary["all_shells"]["count"] == 15
    assert summary["all_shells"]["share_within_95"] >= 0.8
    assert summary["all_shells"]["largest_deviation"] < 4
    assert summary["resolution_reached"] == pytest.approx(6.0, rel=0.02)


def test_report_has_settings_and_versions(study):
    report = json.loads((study / "cref.json").read_text())
    assert report["models"] == ["phantom"]
    assert {"voxel_size": 2.0, "resolution": 6.0, "particles": 60, "seed": 0}.items() <= report["settings"].items()
    assert {"crefjax", "python", "jax", "numpy", "gemmi"} <= set(report)


def test_figures_are_written(study):
    assert (study / "cref.png").read_bytes().startswith(b"\x89PNG")
    svg = (study / "cref.svg").read_text()
    assert "<svg" in svg


def test_independent_voxels_match_the_sum_over_all_pairs():
    """Against the sum over all pairs of voxels, and all of them without a mask."""
    side = 12
    z, y, x = np.meshgrid(*[np.arange(side) - 6.0] * 3, indexing="ij")
    mask = np.clip(4.5 - np.sqrt((z + 0.5) ** 2 + y**2 + 1.3 * x**2), 0, 1)
    covariance = np.fft.fftn(mask**2) / (mask**2).sum()
    shell = shells_of(side)
    voxels, independent = cref.independent_voxels(mask)
    for number in range(side // 2 + 1):
        k = np.argwhere(shell == number)
        apart = (k[:, None] - k[None]) % side
        pairs = (np.abs(covariance[tuple(np.moveaxis(apart, -1, 0))]) ** 2).sum()
        assert voxels[number] == len(k)
        assert independent[number] == pytest.approx(len(k) ** 2 / pairs, rel=1e-9)
    np.testing.assert_allclose(*cref.independent_voxels(np.ones((side,) * 3)), rtol=1e-9)


def test_independent_voxels_give_the_scatter_of_masked_noise():
    """The correlation of many pairs of white noise under a mask varies by one over their number."""
    side, random = 16, np.random.default_rng(0)
    z = np.arange(side) - 8
    mask = (z[:, None, None] ** 2 + z[:, None] ** 2 + z**2 < 25).astype(float)
    curves = np.array([numpy_fsc(*(mask * random.standard_normal((2, side, side, side)))) for _ in range(600)])
    _, independent = cref.independent_voxels(mask)
    np.testing.assert_allclose(curves[:, 3:].var(0) * independent[3:], 1, atol=0.25)


@pytest.mark.parametrize("fsc", [0.02, 0.143, 0.5, 0.9, 0.99])
def test_true_fsc_lies_within_the_band_as_often_as_it_should(fsc):
    """Shells of 800 complex voxels (1600 with their mates) drawn at random, 2000 times; the signal is uneven."""
    random, count, noise = np.random.default_rng(1), 800, 1 / fsc - 1

    def complex_normal(shape):
        return (random.standard_normal(shape) + 1j * random.standard_normal(shape)) / np.sqrt(2)

    signal = complex_normal(count)
    signal /= np.sqrt(np.mean(np.abs(signal) ** 2))
    noises = np.sqrt(noise) * complex_normal((2, 2000, count))
    m1, m2 = signal + noises

    def correlation(a, b):
        power = (np.abs(a) ** 2).sum(-1) * (np.abs(b) ** 2).sum(-1)
        return (a * b.conj()).real.sum(-1) / np.sqrt(power)

    half, true = correlation(m1, m2), correlation((m1 + m2) / 2, signal)
    z = np.arctanh(half)
    low, high = (cref.signed_c_ref(np.tanh(z + s * 1.96 / np.sqrt(2 * count))) for s in (-1, 1))
    assert np.mean((low < true) & (true < high)) == pytest.approx(0.95, abs=0.02)
    deviation = (z - np.arctanh(cref.fsc_of_c_ref(true))) * np.sqrt(2 * count)
    assert np.std(deviation) == pytest.approx(1, abs=0.06)


def test_fsc_of_c_ref_inverts_signed_c_ref():
    h = np.array([-0.4, -1e-4, 0.0, 0.02, 0.5, 0.999])
    np.testing.assert_allclose(cref.fsc_of_c_ref(cref.signed_c_ref(h)), h, atol=1e-12)


def test_shared_signal_is_that_of_the_simulated_particles():
    """The noise-free maps are the simulation's own: what is left of its half-maps is that noise, of either sign."""
    settings = SimulationConfig(
        2.0, 6.0, box=32, seed=3, method="reconstruction", particles=Particles(60, pose_error=8.0), refinements=0
    )
    simulation = simulate_half_maps(phantom(60), settings)
    key = jax.random.fold_in(jax.random.key(settings.seed), 1)
    parts = reconstruct_signal_and_noise(simulation.truth, 2.0, key, settings.particles, refinements=0)
    for half, signal, noise in (
        (simulation.half_map_1, parts.signal_1, parts.noise_1),
        (simulation.half_map_2, parts.signal_2, parts.noise_2),
    ):
        assert abs(np.corrcoef((half - signal).ravel(), np.ravel(noise))[0, 1]) > 0.9999
    shared = cref.shared_with_truth(simulation, settings)
    signals = [np.asarray(part, "f8") * simulation.mask for part in (parts.signal_1, parts.signal_2)]
    h = numpy_fsc(*signals)
    expected = numpy_fsc(sum(signals) / 2, simulation.truth.astype("f8") * simulation.mask) / np.sqrt(2 * h / (1 + h))
    np.testing.assert_allclose(shared, np.minimum(expected, 1), atol=2e-3)
    assert shared[1:15].min() < 0.97


def test_earlier_results_are_replaced_only_with_overwrite(study, capsys):
    before = (study / "cref.csv").read_bytes()
    assert cref.STUDY.main([*SMALL, "-o", str(study)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cref.STUDY.main([*SMALL, "-o", str(study), "--overwrite", "--methods", "additive"]) == 0
    assert before.startswith((study / "cref.csv").read_bytes())


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["nothing.cif"], ["nothing.cif", "no such file"]),
        (["phantom", "--methods", "magic"], ["magic"]),
        (["phantom", "phantom"], ["every model once"]),
        (["phantom", "--resolution", "1"], ["Nyquist"]),
        (["phantom", "--residues", "1"], ["residues"]),
        (["phantom", "--methods", "reconstruction", "--particles", "0"], ["particle"]),
        (["far.pdb", "--box", "32"], ["box of at least"]),
        (["phantom", "-o", "no/such/place"], ["make it first"]),
        (["phantom", "-o", "far.pdb"], ["expected a folder"]),
        ([], ["MODEL"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(argv, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far.pdb").write_text(PDB.format(1, 1, 0, 0, 0, "C") + PDB.format(2, 2, 90, 0, 0, "C"))
    output = [] if "-o" in argv else ["-o", "out"]
    assert cref.STUDY.main([*argv, *output]) == 2
    line = capsys.readouterr().err.rstrip().split("\n")[-1]
    assert all(name in line for name in names), line
    assert [path.name for path in tmp_path.iterdir()] == ["far.pdb"]
