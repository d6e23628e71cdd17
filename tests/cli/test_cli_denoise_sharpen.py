"""`crefjax denoise --sharpen` against slow NumPy, and its refusals."""

import json

import numpy as np
import pytest
from helpers.cli import read, run_crefjax, run_ok, write

SIDE, VOXEL = 32, 1.5


@pytest.fixture
def halves(workdir):
    """A ball of white signal blurred by 90 Å², with weak noise."""
    random = np.random.default_rng(0)
    z, y, x = np.indices((SIDE,) * 3) - SIDE // 2
    k = np.fft.fftfreq(SIDE, VOXEL)
    squared = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
    ball = (x**2 + y**2 + z**2 < 11**2) * (1 + random.standard_normal((SIDE,) * 3))
    signal = np.fft.ifftn(np.fft.fftn(ball) * np.exp(-90 / 4 * squared)).real
    noisy = [(signal + 0.01 * random.standard_normal(signal.shape)).astype("f4") for _ in range(2)]
    return [write(workdir / f"half_{n}.mrc", data) for n, data in enumerate(noisy, 1)]


def rings(array):
    """Amplitude of every shell, by a loop."""
    spectrum = np.abs(np.fft.fftn(array.astype("f8")))
    k = np.fft.fftfreq(SIDE) * SIDE
    shell = np.round(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)).astype(int)
    return np.array([np.sqrt(np.mean(spectrum[shell == s] ** 2)) for s in range(SIDE // 2 + 1)])


def test_sharpened_copy_lies_beside_the_same_denoised_map(halves, weights, workdir):
    run_ok("denoise", *halves, "-o", "plain.mrc", "--weights", weights)
    outcome = run_ok(
        "denoise", *halves, "-o", "out.mrc", "--weights", weights, "--sharpen", "-60", "--report", "report"
    )
    assert "wrote out_sharpened.mrc" in outcome.err
    assert "sharpened copy: sharpened by a B-factor of -60 Å², as given" in outcome.err
    plain, output, sharpened = (read(name)[0] for name in ("plain.mrc", "out.mrc", "out_sharpened.mrc"))
    # The plain run denoises the half-maps around the particle only, so their scale differs a little.
    assert np.corrcoef(plain.ravel(), output.ravel())[0, 1] > 0.999
    guinier = json.loads((workdir / "report/report.json").read_text())["guinier"]
    assert guinier["b_factor"] == -60
    assert 4 * guinier["fit"][1] == pytest.approx(-90, abs=15)
    assert "Guinier plot" in (workdir / "report/index.html").read_text()
    s = np.arange(SIDE // 2 + 1) / (SIDE * VOXEL)
    inner = slice(2, int(0.8 * SIDE * VOXEL / guinier["resolution"]))
    ratio = (rings(sharpened) / rings(output))[inner]
    assert ratio == pytest.approx(np.exp(60 / 4 * s[inner] ** 2), rel=0.03)  # C_ref is nearly 1 there


def test_one_map_or_a_word_cannot_be_sharpened(halves, weights, workdir):
    outcome = run_crefjax("denoise", halves[0], "-o", "out.mrc", "--weights", weights, "--sharpen", "auto")
    assert outcome.status == 2
    assert "--sharpen: expected two half-maps, found one map" in outcome.err
    outcome = run_crefjax("denoise", *halves, "-o", "out.mrc", "--weights", weights, "--sharpen", "much")
    assert outcome.status == 2
    outcome = run_crefjax("denoise", *halves, "-o", "out.mrc", "--weights", weights, "--sharpen", "-5000")
    assert outcome.status == 2
    assert "--sharpen: expected a B-factor of -1000 to 1000 Å²" in outcome.err
    assert sorted(path.name for path in workdir.iterdir()) == ["half_1.mrc", "half_2.mrc"]
