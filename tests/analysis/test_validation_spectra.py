"""Spectra and solvent of simulated and other maps: the JSON file recomputed with NumPy, and refused arguments."""

import json

import mrcfile
import numpy as np
import pytest

from analysis.validation import spectra
from crefjax.io.maps import Map

SIDE, VOXEL = 32, 2.0
SMALL = [
    *("--residues", "60", "--box", "32", "--voxel-size", "2", "--resolution", "6"),
    *("--particles", "60", "--refinements", "0"),
]


def write(path, array):
    with mrcfile.new(path) as mrc:
        mrc.set_data(array.astype("f4"))
        mrc.voxel_size = VOXEL
    return path


def radius(side=SIDE):
    k = np.fft.fftfreq(side, 1 / side)
    return np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)


def means(values):
    shell = np.floor(radius() + 0.5).astype(int).ravel()
    return (np.bincount(shell, values.ravel()) / np.bincount(shell))[: SIDE // 2 + 1]


def ball():
    z = np.arange(SIDE) - SIDE // 2
    return (z[:, None, None] ** 2 + z[:, None] ** 2 + z**2 < 36).astype(float)


def noise(seed=0, fall=0.0):
    """Noise of deviation 1 with power `exp(-fall (r / Nyquist)²)`."""
    spectrum = np.fft.fftn(np.random.default_rng(seed).standard_normal((SIDE,) * 3))
    array = np.fft.ifftn(spectrum * np.exp(-fall / 2 * (radius() / (SIDE / 2)) ** 2)).real
    return array / array.std()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study's folder, with its inputs beside it."""
    here = tmp_path_factory.mktemp("spectra")
    write(here / "real.mrc", 5 + 3 * (10 * ball() + noise(fall=3.0)))
    (here / "pair").mkdir()
    for number in (1, 2):
        write(here / "pair" / f"half_map_{number}.mrc", 5 * ball() + noise(number, fall=2.0))
    write(here / "pair" / "mask.mrc", ball())
    argv = [str(here / "real.mrc"), "--pair", str(here / "pair"), "--noise-map", str(here / "real.mrc"), *SMALL]
    assert spectra.STUDY.main([*argv, "--noise-until", "5", "-o", str(here / "out")]) == 0
    return here


@pytest.fixture(scope="module")
def report(study):
    return json.loads((study / "out" / "spectra.json").read_text())


def test_every_map_and_pair_is_in_the_report(study, report):
    simulated = ["additive, white", "additive, real's spectrum", "reconstruction"]
    assert list(report["maps"]) == [*simulated, "real"]
    assert list(report["pairs"]) == [*simulated, "pair"]
    assert report["simulated"]["reconstruction"]["parameters"]["particles"]["count"] == 60
    assert (study / "out" / "spectra.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (study / "out" / "spectra.svg").read_text()


def test_solvent_of_a_known_map_is_measured(report):
    """Noise of power `exp(-3 (f / Nyquist)²)` around a ball of density 10 deviations."""
    found = report["maps"]["real"]
    frequency = np.array(found["frequency"])
    np.testing.assert_allclose(frequency, np.arange(17) / (SIDE * VOXEL), rtol=1e-5)
    expected = np.exp(-3 * (frequency * 2 * VOXEL) ** 2)
    expected *= radius().size / np.exp(-3 * (radius() / (SIDE / 2)) ** 2).sum()
    np.testing.assert_allclose(np.array(found["solvent_power"])[4:] / expected[4:], 1, atol=0.15)
    assert abs(found["solvent_skewness"]) < 0.1
    assert abs(found["solvent_excess_kurtosis"]) < 0.2
    density = np.array(found["solvent_density"])
    assert density.sum() * 0.2 == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(found["solvent_deviation"], 1, atol=0.1)
    assert 0.5 < found["solvent_fraction"] < 1 - ball().mean()


def test_power_of_the_whole_map_matches_numpy(study, report):
    found = report["maps"]["real"]
    array = mrcfile.read(study / "real.mrc").astype("f8")
    power = means(np.abs(np.fft.fftn(array)) ** 2)
    ratio = np.array(found["power"])[1:] / power[1:]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)


def test_pair_matches_numpy(study, report):
    found = report["pairs"]["pair"]
    halves = [mrcfile.read(study / "pair" / f"half_map_{n}.mrc").astype("f8") for n in (1, 2)]
    f1, f2 = (
        np.fft.fftn((half_map - np.average(half_map, weights=1 - ball())) * ball()) for half_map in halves
    )  # less the solvent
    cross, p1, p2 = (means(product) for product in ((f1 * f2.conj()).real, np.abs(f1) ** 2, np.abs(f2) ** 2))
    left = np.sqrt(p1 * p2) - cross
    np.testing.assert_allclose(found["fsc"], cross / np.sqrt(p1 * p2), atol=1e-4)
    np.testing.assert_allclose(found["noise"][1:], (left / left[1:-1].mean())[1:], rtol=2e-3)
    np.testing.assert_allclose(found["signal"], cross / left[1:-1].mean(), rtol=1e-3, atol=1e-3)


def test_white_noise_is_level_and_the_measured_spectrum_falls(report):
    white, colored = (
        np.array(report["maps"][f"additive, {name}"]["solvent_power"]) for name in ("white", "real's spectrum")
    )
    np.testing.assert_allclose(white[3:], 1, atol=0.2)
    assert colored[4:7].mean() > 2 * colored[-4:].mean()


def test_radial_power_of_white_noise_is_its_variance():
    array = (2 * np.random.default_rng(0).standard_normal((40,) * 3)).astype("f4")
    weight = np.linspace(0, 1, 40, dtype="f4")[:, None, None] * np.ones((40,) * 3, "f4")
    for power in (spectra.radial_power(array), spectra.radial_power(array, weight)):
        np.testing.assert_allclose(power[5:], 4, rtol=0.2)
        assert power[5:].mean() == pytest.approx(4, rel=0.04)


def test_uneven_solvent_is_detected():
    even, uneven = (noise() * (1 + step * (np.arange(SIDE) >= 16)[:, None, None]) for step in (0.0, 2.0))
    found = [spectra.measure_map(Map.from_array(map_, VOXEL)) for map_ in (even, uneven)]
    assert found[0]["solvent_unevenness"] < 0.1
    assert found[1]["solvent_unevenness"] > 0.3
    assert found[1]["solvent_excess_kurtosis"] > 0.5


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["nothing.mrc"], ["nothing.mrc", "no such file"]),
        (["masked.mrc"], ["masked.mrc", "unmasked solvent"]),
        (["good.mrc", "good.mrc"], ["once"]),
        (["--pair", "nothing"], ["nothing", "entry folder"]),
        (["--noise-map", "masked.mrc"], ["masked.mrc", "solvent"]),
        (["--model", "nothing.cif"], ["nothing.cif"]),
        (["--resolution", "1"], ["Nyquist"]),
        (["--particles", "0"], ["particle"]),
        (["-o", "no/such/place"], ["make it first"]),
        (["-o", "good.mrc"], ["expected a folder"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(argv, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.mrc", noise())
    write(tmp_path / "masked.mrc", ball() * (3 + noise()))
    output = [] if "-o" in argv else ["-o", "out"]
    assert spectra.STUDY.main([*SMALL, *argv, *output]) == 2
    line = capsys.readouterr().err.rstrip().split("\n")[-1]
    assert all(name in line for name in names), line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.mrc", "masked.mrc"]


def test_earlier_results_are_kept_without_overwrite(study, capsys):
    before = (study / "out" / "spectra.json").read_bytes()
    assert spectra.STUDY.main([*SMALL, "-o", str(study / "out")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (study / "out" / "spectra.json").read_bytes() == before
