"""The study of calibration: its files, and its scores against NumPy."""

import csv
import json

import mrcfile
import numpy as np
import pytest

import crefjax
from analysis.validation import calibration as study
from crefjax.spectral.curves import FscCurve

SIDE, VOXEL = 24, 2.0
MAPS = [("", "full map"), ("", "Wiener filter"), ("small", "network's own"), ("small", "calibrated")]


def shells_of():
    k = np.fft.fftfreq(SIDE, 1 / SIDE)
    return np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int)


def numpy_fsc(map_1, map_2):
    f1, f2 = np.fft.fftn(map_1), np.fft.fftn(map_2)
    terms = (f1 * f2.conj()).real, np.abs(f1) ** 2, np.abs(f2) ** 2
    cross, p1, p2 = (np.bincount(shells_of().ravel(), term.ravel())[: SIDE // 2 + 1] for term in terms)
    return cross / np.sqrt(p1 * p2)


def filtered(map_, factors):
    """A map times a factor in every shell, 0 beyond the last."""
    of_voxel = np.append(factors, 0)[np.minimum(shells_of(), len(factors))]
    return np.fft.ifftn(np.fft.fftn(map_) * of_voxel).real


def write(path, array):
    with mrcfile.new(path) as mrc:
        mrc.set_data(array.astype("f4"))
        mrc.voxel_size = VOXEL


def make_entry(folder, seed, level):
    """A falling structure in a ball, on a level of 1, and half-maps of it."""
    random = np.random.default_rng(seed)
    z = np.arange(SIDE) - SIDE // 2
    apart = np.sqrt(z[:, None, None] ** 2 + z[:, None] ** 2 + z**2)
    mask = 0.5 + 0.5 * np.cos(np.pi * np.clip((apart - 7) / 3, 0, 1))
    truth = filtered(random.standard_normal((SIDE,) * 3), np.exp(-4 * np.arange(SIDE // 2 + 1) / (SIDE // 2)))
    truth *= 0.5 + 0.5 * np.cos(np.pi * np.clip((apart - 5) / 3, 0, 1))
    truth = 1 + truth / truth[mask > 0.5].std()
    folder.mkdir()
    for number in (1, 2):
        write(folder / f"half_map_{number}.mrc", truth + level * random.standard_normal(truth.shape))
    write(folder / "mask.mrc", mask)
    write(folder / "truth.mrc", truth)
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory, small_weights):
    """Two entries and the study's folder beside them."""
    here = tmp_path_factory.mktemp("calibration")
    entries = [make_entry(here / name, seed, level) for seed, (name, level) in enumerate([("a", 0.5), ("b", 1.0)])]
    argv = [*(str(entry) for entry in entries), "-o", str(here / "out"), "--weights", str(small_weights)]
    assert study.STUDY.main(argv) == 0
    return here


@pytest.fixture(scope="module")
def rows(here):
    with open(here / "out" / "calibration.csv", newline="") as file:
        return list(csv.DictReader(file))


def maps_of(here, entry):
    names = ("half_map_1", "half_map_2", "mask", "truth")
    return [mrcfile.read(here / entry / f"{name}.mrc").astype("f8") for name in names]


def test_all_files_are_written(here, rows, small_weights):
    out = here / "out"
    assert {path.name for path in out.iterdir()} == {
        f"calibration.{kind}" for kind in ("csv", "txt", "json", "png", "svg")
    }
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "calibration.svg").read_text(encoding="utf-8")
    labels = [(row["entry"], row["weights"].rsplit("/", 1)[-1], row["map"]) for row in rows]
    assert labels == [(entry, *name) for entry in "ab" for name in MAPS]
    assert {row["weights"] for row in rows} == {"", small_weights.name}
    assert {(row["box"], row["voxel_size"]) for row in rows} == {(str(SIDE), "2")}
    lines = (out / "calibration.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(rows)
    for line, row in zip(lines[1:], rows, strict=True):
        assert line.startswith(row["entry"])
        for name in ("error", "correlation", "mean_fsc_truth"):
            assert f"{float(row[name]):.4f}" in line


@pytest.mark.parametrize("entry", ["a", "b"])
def test_scores_match_numpy(entry, here, rows, small_weights):
    first, second, mask, truth = maps_of(here, entry)
    full = (first + second) / 2
    leveled = [
        (half_map - np.average(half_map, weights=1 - mask)) * mask for half_map in (first, second)
    ]  # less the solvent
    fsc = np.clip(numpy_fsc(*leveled), 0, 1)
    factors = 2 * fsc / (1 + fsc)
    factors[0] = 1
    below = np.flatnonzero(fsc[1:] < 0.143) + 1
    assert bool(len(below)) == (entry == "b")  # both cases
    if len(below):
        factors[below[0] :] = 0
    pair = [here / entry / f"half_map_{number}.mrc" for number in (1, 2)]
    own, calibrated = (
        crefjax.denoise(*pair, weights=small_weights, scale=scale).array.astype("f8") for scale in ("input", "signal")
    )
    expected = dict(zip((label for _, label in MAPS), (full, filtered(full, factors), own, calibrated), strict=True))
    inside = mask > 0.5
    for row in (row for row in rows if row["entry"] == entry):
        map_ = expected[row["map"]]
        error = np.sum((mask * (map_ - truth)) ** 2) / np.sum((mask * truth) ** 2)
        assert float(row["error"]) == pytest.approx(error, rel=1e-4, abs=2e-6), row
        correlation = np.corrcoef(map_[inside], truth[inside])[0, 1]
        assert float(row["correlation"]) == pytest.approx(correlation, abs=1e-5), row
        mean = numpy_fsc(map_ * mask, truth * mask)[1:-1].mean()
        assert float(row["mean_fsc_truth"]) == pytest.approx(mean, abs=1e-4), row


def test_errors_of_shells_add_up_to_the_error(here, small_network):
    """But for the voxels beyond the last shell, by Parseval's theorem."""
    entry = study.find_entry(here / "a")
    for score in study.score_entry(entry, {"small": small_network}):
        first, second, mask, truth = maps_of(here, "a")
        if score.map != "full map":
            assert 0 < score.error_shells.sum() <= score.error * (1 + 1e-5)
            continue
        spectrum = np.abs(np.fft.fftn(((first + second) / 2 - truth) * mask)) ** 2
        shells = np.bincount(shells_of().ravel(), spectrum.ravel())[: SIDE // 2 + 1]
        np.testing.assert_allclose(score.error_shells, shells / SIDE**3 / np.sum((mask * truth) ** 2), rtol=1e-3)


def scored(entry, weights, label, error, correlation, fsc):
    curve = np.full(9, fsc)
    curve[[0, -1]] = 1000.0  # neither counts
    return study.Score(entry, weights, label, error, correlation, FscCurve((16,) * 3, 2.0, curve), np.zeros(9))


@pytest.mark.parametrize(
    ("error", "correlation", "fsc", "missed"),
    [
        (0.19, 0.91, 0.60, set()),
        (0.20, 0.90, 0.5981, set()),
        (0.21, 0.91, 0.60, {"error"}),
        (0.19, 0.89, 0.60, {"correlation"}),
        (0.19, 0.91, 0.597, {"fsc"}),
        (0.30, 0.80, 0.50, {"error", "correlation", "fsc"}),
    ],
)
def test_passing_criteria_by_hand(error, correlation, fsc, missed):
    """Error against the Wiener filter's 0.2, correlation against the better, 0.9, FSC against the network's, 0.6."""
    scores = [
        scored("a", "", "full map", 0.5, 0.99, 0.9),
        scored("a", "", "Wiener filter", 0.2, 0.85, 0.7),
        scored("a", "w", "network's own", 9.0, 0.9, 0.6),
        scored("a", "w", "calibrated", error, correlation, fsc),
    ]
    (key, shortfall), *more = study.shortfalls(scores).items()
    assert (key, more) == (("a", "w"), [])
    assert {name for name, by in shortfall.items() if by > 1e-12} == missed
    assert shortfall["error"] == pytest.approx(error / 0.2 - 1)
    assert shortfall["correlation"] == pytest.approx(0.9 - correlation)
    assert shortfall["fsc"] == pytest.approx(0.6 - 0.002 - fsc)


def test_counts_in_the_report_match_the_table(here, rows):
    report = json.loads((here / "out" / "calibration.json").read_text(encoding="utf-8"))
    by = {(row["entry"], row["map"]): row for row in rows}
    expected, worst = 0, []
    for entry in "ab":
        found, wiener, own = (by[entry, label] for label in ("calibrated", "Wiener filter", "network's own"))
        value = {name: [float(row[name]) for row in (found, wiener, own)] for name in ("error", "correlation")}
        fsc = [float(row["mean_fsc_truth"]) for row in (found, own)]
        error = value["error"][0] / value["error"][1] - 1
        missed = error, max(value["correlation"][1:]) - value["correlation"][0], fsc[1] - fsc[0] - 0.002
        assert found["passes"] == str(int(max(missed) <= 0))
        expected += max(missed) <= 0
        worst.append(missed)
    assert (report["calibrated_maps"], report["passes"]) == (2, expected)
    for name, values in zip(("error", "correlation", "fsc"), zip(*worst, strict=True), strict=True):
        assert report["worst"][name] == pytest.approx(max(values), abs=1e-4)
    assert len(report["missed"]) == 2 - expected
    assert not report["mask_given"]
    assert {"crefjax", "jax", "python", "seconds", "entries", "weights"} <= set(report)


def test_mistakes_are_one_line_and_leave_nothing(here, small_weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    weights = ["--weights", str(small_weights)]
    bare = tmp_path / "bare"
    bare.mkdir()
    for number in (1, 2):
        (bare / f"half_map_{number}.mrc").symlink_to(here / "a" / f"half_map_{number}.mrc")
    entry = str(here / "a")
    for argv, name in (
        ([str(bare), *weights, "-o", "out"], "mask.mrc"),
        (["nothing", *weights, "-o", "out"], "nothing"),
        ([entry, entry, *weights, "-o", "out"], "every entry once"),
        ([entry, "--weights", "none-such", "-o", "out"], "none-such"),
        ([entry, *weights, "-o", "no/such"], "make it first"),
        ([entry, *weights, "-o", str(here / "out")], "--overwrite"),
        ([entry, *weights], "-o"),
    ):
        assert study.STUDY.main(argv) == 2
        error = capsys.readouterr().err
        assert name in error.rstrip().split("\n")[-1], error
        assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["bare"]
