"""Masks of spheres in noise, with expected values by hand."""

import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.masking import auto_mask, make_mask

SIDE, RADIUS = 64, 14.0
SPHERE_VOLUME = 4 / 3 * np.pi * RADIUS**3  # 11494 voxels


def distance_from(center, shape):
    squares = [(np.arange(n) - c) ** 2 for n, c in zip(shape, center, strict=True)]
    return np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])


def sphere(shape=(SIDE, SIDE, SIDE), center=(32, 32, 32), radius=RADIUS):
    return (distance_from(center, shape) <= radius).astype(np.float32)


def halves(truth, noise, seed=0):
    rng = np.random.default_rng(seed)
    return [truth + noise * rng.standard_normal(truth.shape, dtype=np.float32) for _ in range(2)]


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.6])
def test_sphere_in_noise(noise):
    """The threshold is at 0.2 to 0.5 of the density: the radius grows by 0 to 2 voxels."""
    mask, info = make_mask(*halves(sphere(), noise), 1.5, lowpass=6.0, extend=0, soft_edge=0)
    assert mask.dtype == np.float32
    assert mask.shape == (SIDE, SIDE, SIDE)
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert SPHERE_VOLUME * 0.95 < mask.sum() < SPHERE_VOLUME * (1 + 2 / RADIUS) ** 3
    assert (info.parts_kept, info.extend, info.soft_edge, info.lowpass) == (1, 0, 0, 6)
    assert info.volume == pytest.approx(mask.sum() * 1.5**3)
    assert info.fraction == pytest.approx(mask.mean())
    assert not info.inverted
    assert info.notes == ()


def test_extension_and_edge_of_a_sphere():
    """At threshold 0.5 the body is the sphere; 4 voxels and half an edge of 6 make its radius 7 more."""
    mask, info = make_mask(sphere(), sphere(), 1.0, lowpass=4, threshold=0.5, extend=4, soft_edge=6)
    distance = distance_from((32, 32, 32), mask.shape)
    assert (mask[distance <= RADIUS + 3] == 1).all()
    assert (mask[distance >= RADIUS + 11.5] == 0).all()
    assert info.volume == pytest.approx(4 / 3 * np.pi * (RADIUS + 7) ** 3, rel=0.05)
    assert info.threshold == 0.5


def test_scale_and_offset_of_the_maps_do_not_matter():
    first, second = halves(sphere(), 0.3)
    mask, info = make_mask(first, second, 1.5)
    thousandfold, thousand = make_mask(1000 * first, 1000 * second, 1.5)
    np.testing.assert_array_equal(thousandfold, mask)
    assert thousand.threshold == pytest.approx(1000 * info.threshold, rel=1e-4)
    shifted, shifted_info = make_mask(first.astype(np.float64) - 500, second.astype(np.float64) - 500, 1.5)
    assert np.count_nonzero(shifted != mask) < 20  # voxels at the very threshold may go either way
    assert shifted_info.threshold == pytest.approx(info.threshold - 500, abs=1e-4)


def test_axes_of_a_noncubic_box_keep_their_order():
    shape, center = (40, 56, 72), (18, 25, 40)
    mask, _ = make_mask(*halves(sphere(shape, center, 9), 0.3), 1.5, lowpass=6.0)
    assert mask.shape == shape
    middle = [
        np.average(np.arange(n), weights=mask.sum(axis=others))
        for n, others in zip(shape, [(1, 2), (0, 2), (0, 1)], strict=True)
    ]
    np.testing.assert_allclose(middle, center, atol=0.3)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int16])
def test_other_types_of_voxel_give_the_same_mask(dtype):
    first, second = ((100 * half_map).astype(dtype) for half_map in halves(sphere(), 0.3))
    first.setflags(write=False)
    mask, _ = make_mask(first, second, 1.5)
    expected, _ = make_mask(*halves(sphere(), 0.3), 1.5)
    assert np.abs(mask - expected).mean() < 1e-3


def test_half_maps_within_an_earlier_mask():
    """Outside both are 0, and their difference is not a measure of the noise."""
    within = sphere(radius=28)
    mask, _ = make_mask(*(half_map * within for half_map in halves(sphere(), 2.0)), 1.5, lowpass=6.0)
    expected, _ = make_mask(*halves(sphere(), 2.0), 1.5, lowpass=6.0)
    assert mask.sum() == pytest.approx(expected.sum(), rel=0.05)


def test_large_parts_are_kept_and_dust_is_removed():
    truth = sphere(center=(20, 20, 20), radius=10) + sphere(center=(44, 44, 44), radius=8)
    truth += sphere(center=(12, 50, 50), radius=3)  # 3 % of the largest
    mask, info = make_mask(truth, truth, 1.5, lowpass=4.5, extend=0, soft_edge=0)
    assert (info.parts_found, info.parts_kept) == (3, 2)
    assert mask[20, 20, 20] == mask[44, 44, 44] == 1
    assert mask[12, 50, 50] == 0
    _, info = make_mask(truth, truth, 1.5, lowpass=4.5, min_part=1)
    assert info.parts_kept == 1
    _, info = make_mask(truth, truth, 1.5, lowpass=4.5, min_part=0)
    assert info.parts_kept == 3


def test_dark_particle_is_masked_and_reported():
    first, second = halves(sphere(), 0.3)
    expected, usual = make_mask(first, second, 1.5)
    mask, info = make_mask(-first, -second, 1.5)
    np.testing.assert_array_equal(mask, expected)
    assert info.threshold == pytest.approx(-usual.threshold)
    assert info.inverted
    assert "inverted contrast" in info.notes[-1]
    mask, info = make_mask(-first, -second, 1.5, threshold=-0.5)  # a given one is taken at its word
    assert mask[6, 6, 6] == 1  # a corner, where the soft edge of the border ends
    assert info.threshold == -0.5
    assert info.inverted


def test_the_mask_falls_off_at_the_border_of_the_box():
    """A rod through the box: planes across it are the same, but for a raised cosine over the soft edge at its ends."""
    rod = np.broadcast_to(sphere((1, 40, 40), (0, 20, 20), 6), (40, 40, 40)).copy()
    mask, info = make_mask(rod, rod, 1.5, lowpass=6, soft_edge=4)
    planes = np.ones(40)
    planes[:4] = 0.5 - 0.5 * np.cos(np.pi * (np.arange(4) + 0.5) / 4)
    planes[-4:] = planes[3::-1]
    np.testing.assert_allclose(mask, planes[:, None, None] * mask[20], atol=1e-6)
    assert mask[20, 20, 20] == 1
    assert any("border" in note for note in info.notes)


# --- settings that suit the box, and those that do not


@pytest.mark.parametrize(
    ("side", "voxel_size", "expected"),
    [(100, 1.0, 15.0), (32, 10.52, 31.56), (32, 1.0, 6.4), (60, 1.0, 12.0), (40, 5.0, 15.0)],
)
def test_automatic_low_pass(side, voxel_size, expected):
    truth = sphere((side,) * 3, (side / 2,) * 3, side / 5)
    _, info = make_mask(truth, truth, voxel_size)
    assert info.lowpass == pytest.approx(expected)
    assert any(note.startswith("low-pass") for note in info.notes) == (expected != 15.0)


def test_automatic_widths():
    truth = sphere((90,) * 3, (45,) * 3, 20)
    _, info = make_mask(truth, truth, 1.0)
    assert (info.extend, info.soft_edge, info.notes) == (3, 6, ())
    _, info = make_mask(truth[30:60, 30:60, 30:60], truth[30:60, 30:60, 30:60], 1.0)
    assert (info.extend, info.soft_edge) == (1, 3)
    assert len([note for note in info.notes if "small" in note]) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lowpass": 2.9}, "low-pass from 3 Å"),
        ({"lowpass": 97.0}, "to 96 Å"),
        ({"lowpass": np.nan}, "found nan"),
        ({"threshold": 2.0}, "threshold between .* found 2;"),
        ({"threshold": -2.0}, "threshold between .* found -2;"),
        ({"threshold": np.nan}, "found nan"),
        ({"extend": -1}, "extension to be 0 voxels or more, found -1"),
        ({"soft_edge": -0.5}, "soft edge to be 0 voxels or more, found -0.5"),
        ({"soft_edge": np.inf}, "found inf"),
        ({"soft_edge": 1000}, "soft edge to be at most .* voxels, a quarter of the longest side, found 1000"),
        ({"extend": 1000}, "extension to be at most .* voxels, a quarter of the longest side, found 1000"),
        ({"min_part": 1.5}, "found 1.5"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message) as error:
        make_mask(*halves(sphere(), 0.1), 1.5, **settings)
    assert "\n" not in str(error.value)


def test_invalid_maps_are_refused():
    good = sphere()
    bad = good.copy()
    bad[3, 2, 1] = np.nan
    for first, second, voxel_size, message in [
        (good, bad, 1.5, "half-map 2 has NaN"),
        (good, good[1:], 1.5, "one shape"),
        (good[0], good[0], 1.5, "three axes"),
        (good[:4], good[:4], 1.5, "at least 8 voxels"),
        (good, good, 0.0, "voxel size above 0"),
        (np.full_like(good, 0.1), np.full_like(good, 0.1), 1.5, "same value in every voxel"),
        (good, 1 - good, 1.5, "same value in every voxel"),
    ]:
        with pytest.raises(UserError, match=message):
            make_mask(first, second, voxel_size)


@pytest.mark.parametrize("seed", range(3))
def test_pure_noise_is_refused(seed):
    with pytest.raises(UserError, match="found nothing that stands out"):
        make_mask(*halves(np.zeros((SIDE,) * 3, np.float32), 1.0, seed), 1.5 + seed)


def test_a_threshold_high_in_the_particle_is_reported():
    """Noise of 1.1 in each half is 0.78 in the mean, of which a quarter passes: 4 sigma are 0.78."""
    _, info = make_mask(*halves(sphere(), 1.1), 1.5, lowpass=6.0)
    assert any("a coarser low-pass" in note for note in info.notes)


def test_measurement_mask_is_the_automatic_mask():
    pair = halves(sphere(), 0.3)
    mask, info = make_mask(*pair, 1.5)
    automatic = auto_mask(*pair, 1.5)
    np.testing.assert_array_equal(automatic.require(), mask)
    assert automatic.info == info
    assert automatic.notes == tuple(f"mask to measure within: {note}" for note in info.notes)


def test_measurement_mask_of_noise_is_the_whole_box_with_the_reason():
    automatic = auto_mask(*halves(np.zeros((SIDE,) * 3, np.float32), 1.0), 1.5)
    assert automatic.array is None
    assert "the whole box is used (mask: expected a particle" in automatic.notes[0]
    with pytest.raises(UserError, match="found nothing that stands out"):
        automatic.require()
