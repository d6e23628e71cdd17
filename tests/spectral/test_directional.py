"""FSC by direction and empty directions against slow NumPy, on isotropic and other noise."""

import numpy as np
import pytest

from crefjax.data.pair_check import check_pair
from crefjax.spectral.curves import FscCurve, count_shell_voxels, fsc_from_products, shell_products
from crefjax.spectral.directional import anisotropy, directional_fsc, empty_directions, hemisphere

SIDE, VOXEL = 40, 1.5


def frequencies(side=SIDE):
    k = np.fft.fftfreq(side)
    return np.meshgrid(k, k, k, indexing="ij")


def half_maps(seed=0, *, along_z=0.0, tilt=None, side=SIDE):
    """A random ball with white noise, stronger along z by a factor; without what tilts about y leave out."""
    random = np.random.default_rng(seed)
    kz, ky, kx = frequencies(side)
    squared = kx**2 + ky**2 + kz**2
    z, y, x = np.indices((side,) * 3) - side // 2
    ball = (x**2 + y**2 + z**2 < (0.3 * side) ** 2) * (1 + random.standard_normal((side,) * 3))
    signal = np.fft.fftn(ball) * np.exp(-15 * squared)
    wedge = np.ones_like(squared) if tilt is None else np.abs(kz) <= np.tan(np.radians(tilt)) * np.abs(kx)
    wedge[0, 0, 0] = 1
    cosine = np.abs(kz) / np.sqrt(np.maximum(squared, 1e-12))
    halves = []
    for _ in range(2):
        noise = np.fft.fftn(0.12 * random.standard_normal((side,) * 3)) * (1 + along_z * cosine**2)
        halves.append(np.fft.ifftn((signal + noise) * wedge).real.astype(np.float32))
    return halves


def summary(halves):
    fsc = fsc_from_products(shell_products(halves))
    curve = FscCurve(halves[0].shape, VOXEL, fsc)
    directional = directional_fsc(*halves, VOXEL, resolution=curve.resolution(0.143).angstrom)
    return anisotropy(directional, fsc, count_shell_voxels(curve.box))


def test_fsc_of_a_cone_is_that_of_slow_numpy():
    halves = [half[:, :, 3:-4] for half in half_maps()]  # not a cube, and an odd side
    direction = np.array([0.6, 0.0, 0.8])
    found = directional_fsc(*halves, VOXEL, directions=direction[None])
    a, b = (np.fft.fftn(half.astype("f8")) for half in halves)
    k = [np.fft.fftfreq(n) * max(halves[0].shape) for n in halves[0].shape]
    sums = np.zeros((3, SIDE))
    for index in np.ndindex(a.shape):
        vector = np.array([k[axis][index[axis]] for axis in (2, 1, 0)])
        radius = np.linalg.norm(vector)
        if radius >= 0.5 and radius < SIDE // 2 + 0.5 and abs(vector @ direction) >= radius * np.cos(np.radians(20)):
            values = (a[index] * b[index].conj()).real, abs(a[index]) ** 2, abs(b[index]) ** 2
            sums[:, int(np.floor(radius + 0.5))] += values
    for s in range(2, SIDE // 2):
        cross, first, second = sums[:, max(s - 1, 1) : s + 2].sum(1)
        assert found.fsc[0, s] == pytest.approx(cross / np.sqrt(first * second), abs=2e-3)


def test_directions_are_spread_over_the_hemisphere():
    directions = hemisphere(100)
    assert np.linalg.norm(directions, axis=1) == pytest.approx(np.ones(100))
    assert directions[:, 2].min() >= 0
    nearest = np.sort(np.abs(directions @ directions.T), axis=1)[:, -2]
    assert np.degrees(np.arccos(nearest)).min() > 8  # 12° would be a square grid


@pytest.mark.parametrize("seed", range(4))
def test_isotropic_noise_gives_no_alarm(seed):
    halves = half_maps(seed)
    found = summary(halves)
    assert not found.preferred
    assert "no sign of preferred orientation" in found.describe()
    assert empty_directions(*halves, 15) is None
    assert empty_directions(halves[0], None, 15) is None


def test_noise_along_one_axis_is_found_as_the_worst_direction():
    found = summary(half_maps(side=56, along_z=5))
    assert found.preferred
    assert abs(found.worst[2]) > 0.85
    assert abs(found.best[2]) < 0.5
    assert found.worst_resolution > 1.3 * found.best_resolution
    assert "preferred orientation" in found.describe()


@pytest.mark.parametrize("tilt", [50, 65])
def test_missing_wedge_is_found_around_the_beam(tilt):
    halves = half_maps(tilt=tilt)
    share, direction = empty_directions(*halves, 15)
    assert direction[2] > 0.85
    assert abs(direction[0]) < np.sin(np.radians(90 - tilt))
    assert 0.02 < share < (90 - tilt) / 90
    findings = [finding for finding in check_pair(*halves, VOXEL).findings if finding.kind == "missing_wedge"]
    assert len(findings) == 1
    assert "neither signal nor noise" in findings[0].text
    assert not findings[0].serious
    assert empty_directions(sum(halves) / 2, None, 15) is not None


@pytest.mark.parametrize(("tilt", "found"), [(80, True), (82, True), (86, False)])
def test_a_narrow_wedge_is_found_from_8_degrees_on_either_side(tilt, found):
    halves = half_maps(tilt=tilt, side=64)
    for empty in (empty_directions(*halves, 31), empty_directions(halves[0])):
        assert (empty is not None) == found
        if found:
            assert empty[1][2] > 0.98


def test_directions_without_noise_and_others_without_signal_are_no_wedge():
    """Noise around z alone, and signal far stronger than it everywhere else, as preferred views leave them."""
    random, k = np.random.default_rng(1), frequencies()
    around_z = np.abs(k[0]) > 0.7 * np.sqrt(k[0] ** 2 + k[1] ** 2 + k[2] ** 2)
    signal, *noise = (np.fft.fftn(random.standard_normal((SIDE,) * 3)) for _ in range(3))
    halves = [np.fft.ifftn(np.where(around_z, 0.05 * part, signal)).real.astype(np.float32) for part in noise]
    assert empty_directions(halves[0] - halves[1], None, 15) is not None
    assert empty_directions(halves[0], None, 15) is not None
    assert empty_directions(*halves, 15) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_masked_map_without_a_wedge_gives_no_alarm(seed):
    z, y, x = np.indices((64,) * 3) - 32
    masked = half_maps(seed, side=64)[0] * (x**2 / 4 + y**2 + z**2 < 50)
    assert empty_directions(masked.astype(np.float32)) is None


def test_empty_shells_of_a_low_passed_map_are_no_wedge():
    """What rounding leaves beyond a low-pass, here along z alone, is not looked at."""
    kz, ky, kx = frequencies(64)
    spectrum = np.fft.fftn(half_maps(side=64)[0]) * (kx**2 + ky**2 + kz**2 < 0.25**2)
    spectrum += 1e-3 * (np.abs(kz) > 0.9 * np.sqrt(kx**2 + ky**2 + kz**2)) * (kx**2 + ky**2 + kz**2 > 0.25**2)
    assert empty_directions(np.fft.ifftn(spectrum).real.astype(np.float32)) is None


def test_a_real_missing_wedge_is_found_and_benchmarks_have_none(shared):
    from crefjax.io.maps import read_map

    found = {}
    for name, shell in (("halfmaps/microtubule_13pf", 14), ("halfmaps/npc", 12), ("bench/7yc8", 30)):
        halves = [read_map(shared / name / f"half_map_{n}.mrc").array for n in (1, 2)]
        found[name] = empty_directions(*halves, shell)
    assert found["halfmaps/microtubule_13pf"] is not None
    assert found["halfmaps/npc"] is None
    assert found["bench/7yc8"] is None
