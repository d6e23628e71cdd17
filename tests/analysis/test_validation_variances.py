"""The study of variances: its files, and the variances that it takes for true, against NumPy."""

import csv
import json
from collections import defaultdict

import numpy as np
import pytest

from analysis.validation import variances as study
from analysis.validation.variances import (
    PLANTED_POWER,
    Denoiser,
    ReferencePairs,
    filtered,
    reference_denoisers,
    reference_pairs,
    true_variances,
)
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.maps import Map
from crefjax.simulate.half_maps import SimulationConfig
from crefjax.simulate.phantom import phantom
from crefjax.spectral.curves import shell_frequencies
from crefjax.spectral.variances import shell_variances

SMALL = [
    *("phantom", "--residues", "60", "--box", "32", "--voxel-size", "2", "--resolution", "7"),
    *("--particles", "60", "--refinements", "0"),
]
DENOISERS = ["Wiener filter", "Gaussian blur", "Wiener filter, false structure planted"]
SIDE, VOXEL, LEVEL = 40, 2.0, 0.7
SHELLS = np.arange(SIDE // 2 + 1)


def shells_of(side):
    k = np.fft.fftfreq(side, 1 / side)
    return np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int)


def sums(values):
    side = len(values)
    return np.bincount(shells_of(side).ravel(), values.ravel())[: side // 2 + 1]


def cross(first, second, mask):
    """Mean of a shell's products over the sum of the squared mask."""
    f1, f2 = (np.fft.fftn(half_map.astype("f8") * mask) for half_map in (first, second))
    return sums((f1 * f2.conj()).real) / sums(np.ones(mask.shape)) / np.sum(mask.astype("f8") ** 2)


def slowly_filtered(map_, factors):
    index = np.minimum(shells_of(len(map_)), len(factors) - 1)
    return np.fft.ifftn(np.fft.fftn(map_.astype("f8")) * factors[index]).real


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "known"
    assert study.STUDY.main([*SMALL, "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def table(folder):
    """The CSV: for each method and denoiser, a column of floats by name."""
    columns = defaultdict(lambda: defaultdict(list))
    with open(folder / "variances.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert row.pop("model") == "phantom"
            columns_of_trial = columns[row.pop("method"), row.pop("denoiser")]
            for name, value in row.items():
                columns_of_trial[name].append(float(value))
    return {key: {name: np.array(values) for name, values in curves.items()} for key, curves in columns.items()}


def test_all_files_are_written(folder, table):
    assert {path.name for path in folder.iterdir()} == {f"variances.{kind}" for kind in KINDS}
    assert (folder / "variances.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "variances.svg").read_text(encoding="utf-8")
    assert list(table) == [(method, name) for method in ("additive", "reconstruction") for name in DENOISERS]
    report = json.loads((folder / "variances.json").read_text(encoding="utf-8"))
    assert [(trial["method"], trial["denoiser"]) for trial in report["trials"]] == list(table)
    assert {"box": 32, "resolution": 7.0, "seed": 0, "particles": 60}.items() <= report["settings"].items()
    assert {"crefjax", "python", "jax", "seconds", "planted_power"} <= set(report)


KINDS = ("csv", "json", "png", "svg")


def test_counts_in_the_report_match_the_table(folder, table):
    for trial in json.loads((folder / "variances.json").read_text(encoding="utf-8"))["trials"]:
        rows = table[trial["method"], trial["denoiser"]]
        inner = (rows["shell"] > 0) & (rows["shell"] < 16)
        strong = inner & (rows["signal_true"] > rows["noise_true"])
        assert trial["shells_with_signal_above_noise"] == strong.sum()
        for name in ("signal", "noise", "bias", "residual_noise"):
            apart = np.abs(rows[f"{name}_value"] - rows[f"{name}_true"])
            trusted = strong & (rows[f"{name}_trusted"] == 1)
            assert trial[name]["trusted"] == trusted.sum() > 0
            near, within = apart <= 0.1 * rows[f"{name}_true"], apart <= 2 * rows[f"{name}_error"]
            assert trial[name]["within_10_percent"] == pytest.approx(near[trusted].mean(), abs=1e-3)
            assert trial[name]["within_2_errors"] == pytest.approx(within[trusted].mean(), abs=1e-3)
            assert trial[name]["within_either"] == pytest.approx((near | within)[trusted].mean(), abs=1e-3)
        assert trial["planted_shells"] == rows["planted"].sum() == (3 if "planted" in trial["denoiser"] else 0)
        assert trial["planted_shells_found"] == trial["planted_shells"]


def test_table_matches_numpy(table):
    """Variances of the first pair, said and true, of the additive method."""
    settings = SimulationConfig(2.0, 7.0, box=32, seed=0, method="additive")
    reference = reference_pairs(phantom(60), settings)
    (first, second), mask = reference.pairs[0], reference.mask
    np.testing.assert_allclose(reference.to_truth, 0, atol=1e-9)
    for denoiser in reference_denoisers(reference, {}):
        rows = table["additive", denoiser.name]
        np.testing.assert_array_equal(rows["shell"], np.arange(17))
        np.testing.assert_allclose(rows["frequency"], np.arange(17) / 64, rtol=1e-5)
        np.testing.assert_array_equal(rows["planted"], denoiser.band)
        d1, d2 = denoiser.run(reference.pairs[0])
        s, dd = cross(first, second, mask), cross(d1, d2, mask)
        power = np.sqrt(cross(first, first, mask) * cross(second, second, mask))
        left = np.sqrt(cross(d1, d1, mask) * cross(d2, d2, mask)) - dd
        x = (cross(first, d2, mask) + cross(second, d1, mask)) / 2
        scale = np.maximum(power, s)
        for name, expected in {"signal": s, "noise": power - s, "residual_noise": left, "bias": dd - 2 * x + s}.items():
            np.testing.assert_allclose(rows[f"{name}_value"] / scale, expected / scale, atol=2e-4, err_msg=name)
        np.testing.assert_allclose(rows["signal_true"], cross(reference.signal, reference.signal, mask), rtol=1e-3)
        for name, maps, middle in (
            ("noise", (first, second), reference.signal),
            ("residual_noise", (d1, d2), denoiser.of_signal),
        ):
            expected = np.mean([cross(map_ - middle, map_ - middle, mask) for map_ in maps], axis=0)
            np.testing.assert_allclose(rows[f"{name}_true"] / scale, expected / scale, atol=1e-4, err_msg=name)


def by_hand(*, masked=False):
    """A falling signal of deviation 1 in a ball and five pairs of white noise."""
    random = np.random.default_rng(4)
    z = np.arange(SIDE) - SIDE // 2
    apart = np.sqrt(z[:, None, None] ** 2 + z[:, None] ** 2 + z**2)
    ball = 0.5 + 0.5 * np.cos(np.pi * np.clip((apart - 12) / 3, 0, 1))
    signal = slowly_filtered(random.standard_normal((SIDE,) * 3), np.exp(-4 * SHELLS / (SIDE // 2))) * ball
    signal = (signal / signal[ball > 0.5].std()).astype("f4")
    pairs = [tuple(signal + LEVEL * random.standard_normal((SIDE,) * 3).astype("f4") for _ in "12") for _ in range(5)]
    mask = ball.astype("f4") if masked else np.ones((SIDE,) * 3, "f4")
    return ReferencePairs(signal, pairs, mask, VOXEL, np.zeros(len(SHELLS)), 6.0)


@pytest.mark.parametrize("signal_known", [True, False])
def test_true_variances_of_a_linear_filter_match_the_formula(signal_known):
    """Bias (1 - w)² var(S), residual noise w² var(N); nearly so where it is found by trying."""
    reference = by_hand()
    factors = np.exp(-((SHELLS / 8) ** 2))

    def run(pair):
        return tuple(slowly_filtered(half, factors) for half in pair)

    of_signal = slowly_filtered(reference.signal, factors) if signal_known else None
    denoiser = Denoiser("by hand", run, of_signal, np.zeros(len(SHELLS), bool))
    true = true_variances(reference, denoiser, run(reference.pairs[0]))
    signal = cross(reference.signal, reference.signal, reference.mask)
    noise = np.mean(
        [cross(half - reference.signal, half - reference.signal, reference.mask) for half in reference.pairs[0]], axis=0
    )
    np.testing.assert_allclose(true["signal"], signal, rtol=1e-4)
    np.testing.assert_allclose(true["noise"], noise, rtol=1e-4)
    residual, bias = factors**2 * noise, (1 - factors) ** 2 * signal
    numbers = sums(np.ones((SIDE,) * 3))
    errors = np.zeros((2, len(SHELLS)))
    if not signal_known:  # the signal's part is the mean of eight outputs, whose noise is that much less
        errors[0] = 5 * np.sqrt(0.5 / numbers) * factors**2 * LEVEL**2
        errors[1] = 5 * np.sqrt((4 * bias * factors**2 * LEVEL**2 + 2 * factors**4 * LEVEL**4 / 7) / (8 * numbers))
    floor = 1e-6 * signal.max()
    assert np.all(np.abs(true["residual_noise"] - residual)[1:] <= (errors[0] + 1e-3 * residual + floor)[1:])
    assert np.all(np.abs(true["bias"] - bias)[1:] <= (errors[1] + 1e-3 * bias + floor)[1:])


@pytest.mark.parametrize("masked", [True, False])
def test_planted_structure_is_flagged_and_has_the_expected_power(masked):
    """Without a mask a filter is one factor in a shell: nothing else is flagged. A mask spreads what is planted."""
    reference = by_hand(masked=masked)
    frequency = shell_frequencies(reference.mask.shape, VOXEL)
    at = SIDE * VOXEL / reference.resolution
    for denoiser in reference_denoisers(reference, {}, seed=1):
        denoised = denoiser.run(reference.pairs[0])
        found = shell_variances(*reference.pairs[0], *denoised, reference.mask)
        true = true_variances(reference, denoiser, denoised)
        trial = study.Trial("ball", "by hand", denoiser.name, denoiser.band, found, true, frequency)
        summary = study.summarize(trial)
        planted = np.flatnonzero(denoiser.band)
        assert summary["shells_falsely_said_to_have_it"] <= 1
        if not masked:
            assert (trial.flagged & ~denoiser.band)[1:-1].sum() <= 1
        if "planted" not in denoiser.name:
            assert len(planted) == 0
            continue
        np.testing.assert_array_equal(planted, np.arange(round(0.45 * at), round(0.65 * at) + 1))
        assert trial.flagged[planted].all()
        assert summary["planted_shells_found"] == summary["planted_shells"] == len(planted)
        if not masked:
            false = denoiser.of_signal - slowly_filtered(reference.signal, true["signal"] / (true["signal"] + LEVEL**2))
            inside = (cross(false, false, reference.mask) / true["signal"])[planted]
            np.testing.assert_allclose(inside, PLANTED_POWER, rtol=0.25)


def test_filters_match_numpy():
    reference = by_hand(masked=True)
    factors = np.random.default_rng(0).uniform(0, 2, len(SHELLS))
    found = filtered(reference.signal, factors)
    np.testing.assert_allclose(found, slowly_filtered(reference.signal, factors), atol=1e-5)
    blur = reference_denoisers(reference, {})[1]
    at = 0.6 * SIDE * VOXEL / reference.resolution
    expected = slowly_filtered(reference.pairs[2][1], np.exp(-((SHELLS / at) ** 2)))
    np.testing.assert_allclose(blur.run(reference.pairs[2])[1], expected, atol=1e-5)
    np.testing.assert_allclose(
        blur.of_signal, slowly_filtered(reference.signal, np.exp(-((SHELLS / at) ** 2))), atol=1e-5
    )


def test_network_output_of_the_first_pair_matches_denoise(small_network):
    reference = by_hand()
    network = reference_denoisers(reference, {"small": small_network})[-1]
    assert (network.name, network.of_signal, network.band.any()) == ("small", None, False)
    maps = tuple(Map.from_array(half, VOXEL) for half in reference.pairs[0])
    expected = denoise_maps(DenoiseRequest(maps, small_network, half_maps=True))
    for found, half_map in zip(
        network.run(reference.pairs[0]), (expected.half_map_1, expected.half_map_2), strict=True
    ):
        np.testing.assert_allclose(found, half_map.array, atol=1e-4)


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["nothing.cif"], ["nothing.cif", "no such file"]),
        (["phantom", "--weights", "nothing"], ["nothing"]),
        (["phantom", "--residues", "1"], ["residues"]),
        (["phantom", "-o", "no/such/place"], ["make it first"]),
        ([], ["MODEL"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(argv, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert study.STUDY.main([*argv, *([] if "-o" in argv else ["-o", "out"])]) == 2
    error = capsys.readouterr().err
    assert all(name in error.rstrip().split("\n")[-1] for name in names), error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_earlier_results_are_kept_without_overwrite(folder, capsys):
    before = (folder / "variances.csv").read_bytes()
    assert study.STUDY.main([*SMALL, "-o", str(folder)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "variances.csv").read_bytes() == before
