"""`crefjax denoise` says before it starts if the weights are not meant for the half-maps."""

import re

import numpy as np
import pytest
from helpers.cli import run_ok, write

SIDE = 32


@pytest.fixture
def halves(workdir):
    """Return a function that writes half-maps of random blobs with a voxel size, with a missing wedge or without."""

    def make(voxel_size, *, wedge=False):
        random = np.random.default_rng(0)
        k = np.fft.fftfreq(SIDE)
        kz, ky, kx = np.meshgrid(k, k, k, indexing="ij")
        z, y, x = np.indices((SIDE,) * 3) - SIDE // 2
        ball = (x**2 + y**2 + z**2 < 81) * (1 + random.standard_normal((SIDE,) * 3))
        signal = np.fft.fftn(ball) * np.exp(-15 * (kx**2 + ky**2 + kz**2))
        seen = np.abs(kz) <= 1.7 * np.abs(kx) if wedge else np.ones_like(kz)
        seen[0, 0, 0] = 1
        paths = []
        for n in (1, 2):
            noisy = signal + np.fft.fftn(0.1 * random.standard_normal((SIDE,) * 3))
            data = np.fft.ifftn(noisy * seen).real.astype("f4")
            paths.append(write(workdir / f"half_{n}.mrc", data, voxel=voxel_size))
        return paths

    return make


@pytest.mark.parametrize(
    ("voxel_size", "wedge", "reason"),
    [(5.0, False, "coarser than 8 Å"), (1.5, True, "half-maps with a missing wedge: "), (1.5, False, None)],
)
def test_one_line_before_the_work(halves, weights, voxel_size, wedge, reason):
    pair = halves(voxel_size, wedge=wedge)
    lines = run_ok("denoise", *pair, "-o", "out.mrc", "--weights", weights, "--scale", "none").err.splitlines()
    found = [number for number, line in enumerate(lines) if "are not meant for half-maps with" in line]
    if reason is None:
        assert not found
        assert "missing wedge" not in "".join(lines)
        return
    assert len(found) == 1
    assert lines[found[0]].startswith("warning: the weights small are not meant for half-maps with")
    assert reason in lines[found[0]]
    assert found[0] < next(number for number, line in enumerate(lines) if "peak memory" in line)


@pytest.mark.parametrize("wedge", [True, False])
def test_a_missing_wedge_of_a_single_map_is_noticed(halves, weights, workdir, wedge):
    lines = run_ok("denoise", halves(1.5, wedge=wedge)[0], "-o", "out.mrc", "--weights", weights).err.splitlines()
    found = [line for line in lines if "missing wedge" in line]
    assert len(found) == (2 if wedge else 0)
    if wedge:
        assert "the map has no power in" in found[0]
        x, y, z = map(float, re.search(r"around \(x, y, z\) = \((.*?)\)", found[0])[1].split(", "))
        assert (x, y, z) == pytest.approx((0, 0, 1), abs=0.03)
        assert "not meant for maps with a missing wedge" in found[1]
