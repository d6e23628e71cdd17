"""Problems of half-map pairs are found, named, and measured; sound pairs have no findings."""

import itertools

import numpy as np
import pytest

from crefjax.data.pair_check import check_pair
from crefjax.io.maps import read_map

VOXEL = 2.0
SIDE = 40


def frequency(shape=(SIDE,) * 3):
    return np.sqrt(sum(np.square(axis) for axis in np.ix_(*(np.fft.fftfreq(n) for n in shape))))


def body(seed=0):
    """Return forty Gaussian blobs in a ball off the middle, without symmetry."""
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij")
    out = np.zeros((SIDE,) * 3)
    for _ in range(40):
        step = random.standard_normal(3)
        at = [19, 21, 20] + 9 * random.random() ** (1 / 3) * step / np.linalg.norm(step)
        out += np.exp(-((z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2) / 4)
    return out


@pytest.fixture(scope="module")
def pair():
    random = np.random.default_rng(1)
    return [(body() + 0.4 * random.standard_normal((SIDE,) * 3)).astype(np.float32) for _ in range(2)]


def kinds(found):
    return [(finding.kind, finding.serious) for finding in found.findings]


def test_a_sound_pair_has_no_findings(pair):
    found = check_pair(*pair, VOXEL)
    assert kinds(found) == []
    assert not found.serious
    assert kinds(check_pair(*pair[::-1], VOXEL)) == []


@pytest.mark.parametrize("shift", [(0, 0, 2), (-3, 1, 0)])
def test_a_shift_is_measured(pair, shift):
    """`np.roll` moves the content towards larger indices."""
    moved = np.roll(pair[1], shift, (0, 1, 2))
    (found,) = check_pair(pair[0], moved, VOXEL).findings
    assert (found.kind, found.serious) == ("shift", True)
    assert found.numbers["shift"] == [VOXEL * voxels for voxels in shift[::-1]]
    assert found.numbers["resolution"] > 1.2 * found.numbers["resolution_when_undone"]


TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))[1:]


@pytest.mark.parametrize("turn", TURNS[::5])
def test_another_orientation_is_undone(pair, turn):
    axes, flips = turn
    turned = pair[1].transpose(axes)[tuple(slice(None, None, step) for step in flips)]
    found = check_pair(pair[0], np.ascontiguousarray(turned), VOXEL).findings
    assert (found[0].kind, found[0].serious) == ("orientation", True)
    plain = check_pair(*pair, VOXEL).curve.resolution(0.143).angstrom
    assert found[0].numbers["resolution_when_undone"] == pytest.approx(plain, rel=0.05)
    hand = np.prod(flips) * np.linalg.det(np.eye(3)[list(axes)])
    assert ("changes its hand" in found[0].text) == (hand < 0)


def test_an_orientation_is_described_in_words(pair):
    def describe(array):
        return check_pair(pair[0], np.ascontiguousarray(array), VOXEL).findings[0].text

    assert "half-map 2 is mirrored along x, which changes its hand, relative to" in describe(pair[1][..., ::-1])
    assert "half-map 2 is mirrored along y and z relative to" in describe(pair[1][::-1, ::-1])
    assert "of other axes (x is its y, y is its x, z is its z), which changes its hand," in describe(
        pair[1].swapaxes(1, 2)
    )


@pytest.mark.parametrize(("ratio", "offset"), [(37, 5), (3, 0), (1, 20), (0.01, -2), (-1, 0), (-2, 3)])
def test_another_scale_is_measured(pair, ratio, offset):
    (found,) = check_pair(pair[0], pair[1] * np.float32(ratio) + np.float32(offset), VOXEL).findings
    assert (found.kind, found.serious) == ("scale", False)
    assert found.numbers["ratio"] == pytest.approx(ratio, rel=0.05)
    assert found.numbers["offset"] == pytest.approx(offset, abs=0.05 * (abs(ratio) + abs(offset)))


@pytest.mark.parametrize(
    "second",
    [
        lambda first, second: first.copy(),
        lambda first, second: 2 * first,
        lambda first, second: np.round(first * 40) / 40,
        lambda first, second: first.astype(np.float16).astype(np.float32),
        lambda first, second: (first + second) / 2,
    ],
)
def test_noise_that_is_not_independent_is_serious(pair, second):
    found = check_pair(pair[0], second(*pair), VOXEL)
    assert ("same_noise", True) in kinds(found)


def test_filters_and_masks_of_half_maps_are_found(pair):
    low = [
        np.fft.ifftn(np.fft.fftn(half_map) * (frequency() < VOXEL / 10)).real.astype(np.float32) for half_map in pair
    ]
    (found,) = (finding for finding in check_pair(*low, VOXEL).findings if finding.kind == "filtered")
    assert found.numbers["low_pass"] == pytest.approx(10, rel=0.15)
    z, y, x = np.meshgrid(*[np.arange(SIDE) - 20] * 3, indexing="ij")
    ball = (z**2 + y**2 + x**2 < 14**2).astype(np.float32)
    assert ("masked", False) in kinds(check_pair(*(half_map * ball for half_map in pair), VOXEL))
    assert ("contrast", False) in kinds(check_pair(*(-half_map for half_map in pair), VOXEL))


def test_a_hot_voxel_is_named(pair):
    hot = pair[1].copy()
    hot[3, 30, 11] -= 100
    (found,) = (finding for finding in check_pair(pair[0], hot, VOXEL).findings if finding.kind == "hot_voxel")
    assert found.numbers == {"map": "half-map 2", "places": [[11, 30, 3]]}
    assert not check_pair(pair[0], hot, VOXEL).serious


@pytest.mark.parametrize("seed", range(5))
def test_pure_noise_gives_only_the_no_signal_finding(seed):
    noise = np.random.default_rng(seed).standard_normal((2, 32, 32, 32)).astype(np.float32)
    assert kinds(check_pair(*noise, VOXEL)) == [("no_signal", False)]


def test_a_box_that_is_not_a_cube(pair):
    crop = [half_map[2:, :, 4:-3] for half_map in pair]
    assert kinds(check_pair(*crop, VOXEL)) == []
    turned = np.ascontiguousarray(crop[1][::-1])
    assert kinds(check_pair(crop[0], turned, VOXEL))[0] == ("orientation", True)


def test_published_pairs_have_no_findings_but_a_missing_wedge(shared):
    from crefjax.io.maps import read_map

    # The microtubule was cut from one tomogram, where no direction near the beam was seen.
    found = {"bench/8tze": [], "bench/7yc8": [], "halfmaps/microtubule_13pf": [("missing_wedge", False)]}
    for folder, expected in found.items():
        first, second = (read_map(shared / folder / f"half_map_{number}.mrc") for number in (1, 2))
        assert kinds(check_pair(first.array, second.array, first.voxel_size)) == expected, folder
    cases = shared / "cases"
    base, other, flipped, mask = (read_map(cases / f"{name}.mrc") for name in ("base_1", "base_2", "flipped_2", "mask"))
    for region in (None, mask.array):
        assert kinds(check_pair(base.array, other.array, 3.0, region)) == []
        # Its signal is weak: mirroring is what fits best, but not for certain.
        (found,) = check_pair(base.array, flipped.array, 3.0, region).findings
        assert (found.kind, found.numbers["orientation"]) == (
            "orientation",
            "mirrored along z, which changes its hand,",
        )


@pytest.mark.parametrize("turn", TURNS[3::11])
@pytest.mark.parametrize("shift", [(0, 0, 2), (3, -1, 2)])
def test_another_orientation_and_a_shift_together(pair, turn, shift):
    axes, flips = turn
    turned = pair[1].transpose(axes)[tuple(slice(None, None, step) for step in flips)]
    found = check_pair(pair[0], np.roll(turned, shift, (0, 1, 2)), VOXEL).findings
    assert (found[0].kind, found[0].serious) == ("orientation", True)
    assert "shifted by" in found[0].text
    plain = check_pair(*pair, VOXEL).curve.resolution(0.143).angstrom
    assert found[0].numbers["resolution_when_undone"] == pytest.approx(plain, rel=0.05)


def test_a_small_mirrored_half_map_is_not_a_pair(shared):
    """In a box of 32³ voxels there is little evidence for either orientation."""
    first, second = (read_map(shared / "cases" / name) for name in ("base_1.mrc", "flipped_2.mrc"))
    found = check_pair(first.array, second.array, first.voxel_size)
    assert found.serious
    assert any("mirrored along z" in finding.text for finding in found.findings)
