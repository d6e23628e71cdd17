"""`crefjax fsc` against NumPy in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import densities, run_crefjax, run_ok, tree, write

KEYS = {"box", "voxel_size", "shell", "frequency", "fsc", "cref", "resolution_at_0.5", "resolution_at_0.143"}
VOXEL = 1.5


def slow_curve(a, b, voxel=VOXEL):
    """Return frequency (1/Å) and FSC of shells 0 to N/2, from full spectra in float64."""
    longest = max(a.shape)
    length = longest * voxel
    k = np.sqrt(sum(axis**2 for axis in np.meshgrid(*(np.fft.fftfreq(n, voxel) for n in a.shape), indexing="ij")))
    shell = np.floor(k * length + 0.5 + 1e-9)
    first, second = np.fft.fftn(a.astype("f8")), np.fft.fftn(b.astype("f8"))
    curve = []
    for s in range(longest // 2 + 1):
        f1, f2 = first[shell == s], second[shell == s]
        power = np.sqrt((abs(f1) ** 2).sum() * (abs(f2) ** 2).sum())
        curve.append((f1 * f2.conj()).sum().real / power if power else 0.0)
    return np.arange(longest // 2 + 1) / length, np.array(curve)


def slow_resolution(curve, threshold, length):
    """Return the resolution in Å at the first shell below the threshold, interpolated in shell index, or Nyquist."""
    for s in range(1, len(curve)):
        if curve[s] < threshold:
            above = curve[s - 1] - threshold
            return length / (s - 1 + above / (above + threshold - curve[s]))
    return length / (len(curve) - 1)


def written(workdir, halves, **words):
    return [write(workdir / f"map_{n}.mrc", data, voxel=VOXEL, **words) for n, data in enumerate(halves, 1)]


def measured(*words):
    run_ok("fsc", *words, "--json", "fsc.json")
    return json.loads(Path("fsc.json").read_text())


def check(result, a, b):
    frequency, curve = slow_curve(a, b)
    assert set(result) >= KEYS
    assert result["shell"] == list(range(len(curve)))
    assert result["frequency"] == pytest.approx(frequency, rel=1e-6)
    assert result["fsc"] == pytest.approx(curve, abs=1e-5)
    above = np.maximum(result["fsc"], 0)
    assert result["cref"] == pytest.approx(np.sqrt(2 * above / (1 + above)), abs=1e-5)
    for threshold in (0.5, 0.143):
        expected = slow_resolution(curve, threshold, max(a.shape) * VOXEL)
        assert result[f"resolution_at_{threshold}"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(20, 17, 23), (16, 16, 16), (21, 21, 21), (12, 30, 7), (9, 24, 24)])
def test_curve_of_any_box(shape, workdir):
    halves = densities(shape, noise=1.0)
    result = measured(*written(workdir, halves))
    check(result, *halves)
    assert result["voxel_size"] == pytest.approx(VOXEL)
    assert sorted(np.ravel(result["box"]).tolist()) in (sorted(shape), [shape[0]])


def test_box_is_in_array_order(workdir):
    assert measured(*written(workdir, densities((20, 17, 23))))["box"] == [20, 17, 23]


def test_axis_order_of_the_file_does_not_change_the_curve(workdir):
    halves = densities((20, 17, 23))
    check(measured(*written(workdir, halves, axes=(2, 3, 1))), *halves)


def test_mask_multiplies_both_maps(workdir):
    halves = densities((20, 17, 23), noise=2.0)
    mask = np.clip(1.2 - 3 * abs(np.random.default_rng(5).standard_normal((20, 17, 23))), 0, 1).astype("f4")
    write(workdir / "mask.mrc", mask, voxel=VOXEL)
    centerd = [half - np.average(half.astype("f8"), weights=1 - mask.astype("f8")) for half in halves]
    check(measured(*written(workdir, halves), "--mask", "mask.mrc"), *(half * mask for half in centerd))


def test_large_mean_does_not_affect_other_shells(workdir):
    halves = [half + np.float32(1000) for half in densities((20, 20, 20), noise=1.0)]
    result = measured(*written(workdir, halves))
    assert result["fsc"] == pytest.approx(slow_curve(*halves)[1], abs=1e-4)


def test_sign_of_the_means_does_not_change_the_resolution(workdir):
    """Half-maps often have a mean near 0, so that shell 0 carries no information."""
    a, b = (half - half.mean() for half in densities((20, 20, 20), noise=1.0))
    check(measured(*written(workdir, (a + 0.01, b - 0.01))), a + 0.01, b - 0.01)


def test_inverted_map_has_the_negative_curve(workdir):
    a, b = densities((16, 16, 16), noise=1.0)
    result = measured(*written(workdir, (a, -b)))
    assert result["fsc"] == pytest.approx(-slow_curve(a, b)[1], abs=1e-5)
    assert result["cref"][1] == 0


def test_empty_shells_are_0(workdir):
    """Both maps are a plane wave of 4 periods, without power in other shells."""
    wave = np.zeros((16, 16, 16)) + np.sin(2 * np.pi * 4 * np.arange(16) / 16)
    result = measured(*written(workdir, (wave.astype("f4"), (2 * wave).astype("f4"))))
    assert np.isfinite(result["fsc"]).all()
    assert result["fsc"][4] == pytest.approx(1, abs=1e-5)


def test_curve_that_never_falls_gives_the_nyquist_limit(workdir):
    a, _ = densities((16, 16, 16), noise=1.0)
    outcome = run_crefjax("fsc", *written(workdir, (a, 2 * a + 1)), "--json", "fsc.json")
    assert outcome.status == 0
    assert "Nyquist" in outcome.text
    result = json.loads(Path("fsc.json").read_text())
    assert result["resolution_at_0.143"] == pytest.approx(2 * VOXEL)
    assert result["resolution_at_0.5"] == pytest.approx(2 * VOXEL)


def test_table_has_every_shell_and_both_resolutions(workdir):
    halves = densities((20, 17, 23), noise=1.0)
    outcome = run_ok("fsc", *written(workdir, halves))
    frequency, curve = slow_curve(*halves)
    rows = [line.split() for line in outcome.out.splitlines() if line.strip()[:1].isdigit()]
    assert [int(row[0]) for row in rows] == list(range(12))
    assert [float(row[1]) for row in rows] == pytest.approx(frequency, abs=6e-5)
    assert [float(row[3]) for row in rows] == pytest.approx(curve, abs=6e-5)
    for threshold in (0.5, 0.143):
        assert f"{slow_resolution(curve, threshold, 23 * VOXEL):.2f} Å" in outcome.out
    assert set(tree(workdir)) == {"map_1.mrc", "map_2.mrc"}


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.svg", b"<?xml"), ("A.PNG", b"\x89PNG")]
)
def test_plot_format_follows_the_suffix(name, start, workdir):
    run_ok("fsc", *written(workdir, densities((16, 16, 16), noise=1.0)), "--plot", name)
    assert (workdir / name).read_bytes().startswith(start)
    assert len(list(workdir.iterdir())) == 3


def test_json_holds_no_nan(workdir):
    """It has neither NaN nor Infinity, which other parsers refuse."""
    measured(*written(workdir, densities((16, 16, 16))))

    def stop(name):
        raise AssertionError(name)

    json.loads(Path("fsc.json").read_text(), parse_constant=stop)
