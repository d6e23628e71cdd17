"""Automatic masks, compared with the masks and the truth of real and simulated entries."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from crefjax.masking import make_mask
from crefjax.masking.threshold import low_pass

SHARED = Path(__file__).parents[2].parent / "shared"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared is absent")


def read(path):
    with mrcfile.open(path, permissive=True) as mrc:
        return np.asarray(mrc.data, np.float32), float(mrc.voxel_size.x)


def entry(name):
    half_map_1, voxel_size = read(SHARED / name / "half_map_1.mrc")
    half_map_2, mask = (read(SHARED / name / file)[0] for file in ("half_map_2.mrc", "mask.mrc"))
    return half_map_1, half_map_2, voxel_size, mask


@pytest.mark.parametrize("case", ["8tze", "7yc8"])
def test_masks_of_simulated_pairs(case):
    """All the truth's power is inside (its solvent is 0), and the volume is about that of the given mask."""
    half_map_1, half_map_2, voxel_size, deposited_mask = entry(f"bench/{case}")
    mask, info = make_mask(half_map_1, half_map_2, voxel_size)
    truth, _ = read(SHARED / "bench" / case / "truth.mrc")
    assert np.sum((truth * mask) ** 2) / np.sum(truth**2) > 0.999
    assert 0.85 < mask.sum() / deposited_mask.sum() < 1.2
    inside, given_inside = mask >= 0.5, deposited_mask >= 0.5
    assert 2 * np.sum(inside & given_inside) / (inside.sum() + given_inside.sum()) > 0.93
    assert (info.lowpass, info.extend, info.soft_edge, info.parts_kept) == (15, 3, 6, 1)
    assert info.notes == ()


def test_mask_of_a_microtubule():
    """The given mask is a filled cylinder; the automatic one covers the walls, and less of the solvent inside."""
    half_map_1, half_map_2, voxel_size, deposited_mask = entry("halfmaps/microtubule_13pf")
    mask, info = make_mask(half_map_1, half_map_2, voxel_size)
    assert info.lowpass == pytest.approx(3 * voxel_size)
    assert 0.6 < mask.sum() / deposited_mask.sum() < 1.3
    inside, given_inside = mask >= 0.5, deposited_mask >= 0.5
    assert 2 * np.sum(inside & given_inside) / (inside.sum() + given_inside.sum()) > 0.75
    bright = (half_map_1 + half_map_2 > 2) & given_inside & away_from_border(inside.shape, info.soft_edge)
    assert inside[bright].mean() > 0.99
    assert not info.inverted
    assert any("border" in note for note in info.notes)


def test_mask_of_a_nuclear_pore():
    """Protein and membrane are dark, the voxel size is unknown; the given mask is a ball in the middle."""
    half_map_1, half_map_2, voxel_size, deposited_mask = entry("halfmaps/npc")
    mask, info = make_mask(half_map_1, half_map_2, voxel_size)
    assert info.inverted
    assert info.lowpass == pytest.approx(6.4)
    assert 0.6 < mask.sum() / deposited_mask.sum() < 1.6
    full = (half_map_1 + half_map_2) / 2
    dark = (full < full.mean() - full.std()) & away_from_border(full.shape, info.soft_edge)
    assert mask[dark].mean() > 0.95
    assert mask[full > full.mean()].mean() < 0.35


def away_from_border(shape, soft_edge):
    """Return the voxels that the fall-off of the mask towards the border does not change."""
    inside = np.zeros(shape, bool)
    margin = int(np.ceil(soft_edge))
    inside[margin:-margin, margin:-margin, margin:-margin] = True
    return inside


@pytest.mark.parametrize(
    ("file", "least", "most"),
    [  # fractions of the box, from the pictures of these maps
        ("emd_3488.map", 0.12, 0.26),
        ("emd_5168.map", 0.15, 0.45),  # with the rim of solvent around the filament, which is in the map
        ("emd_5170.map", 0.13, 0.28),
        ("emd_20026_crop.mrc", 0.17, 0.35),
        ("emd_2566_chain9.mrc", 0.26, 0.6),
        ("t20s_4.8A_chainA.mrc", 0.14, 0.5),
    ],
)
def test_final_maps_as_both_halves(file, least, most):
    volume, voxel_size = read(SHARED / "maps" / file)
    mask, info = make_mask(volume, volume, voxel_size)
    assert least < info.fraction < most
    assert not info.inverted
    low_passed = low_pass(volume - volume.mean(), voxel_size, info.lowpass)
    particle = (low_passed > low_passed.max() / 2) & away_from_border(mask.shape, info.soft_edge)
    assert mask[particle].min() == 1
    masked_out = volume[mask == 0].astype(np.float64)
    assert np.sum(masked_out**2) < 0.2 * np.sum(volume.astype(np.float64) ** 2)
