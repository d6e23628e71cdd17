"""Maps resampled to the grid of an entry, against the formula of their density at the voxels of that grid."""

import mrcfile
import numpy as np
import pytest
import scipy.ndimage

from analysis.framework.resample import read_resampled
from crefjax.errors import UserError
from crefjax.io.maps import read_map
from crefjax.spectral.fsc import fsc_curve

SHAPE, VOXEL = (40, 36, 44), 1.5  # (z, y, x); 60, 54 and 66 Å
SIDES = tuple(side * VOXEL for side in SHAPE)
ORIGIN = (12.3, -7.5, 30.4)  # Å, (x, y, z)
_RANDOM = np.random.default_rng(3)
CENTERS = _RANDOM.uniform(0.3, 0.7, (12, 3)) * SIDES
HEIGHTS = _RANDOM.uniform(0.5, 1.5, 12) * np.where(np.arange(12) < 9, 1, -0.6)


def density(shape=SHAPE, voxel=VOXEL, first=(0, 0, 0)):
    """Gaussians sampled on a grid whose first voxel lies at `first` Å (z, y, x) in the box; 4e-6 is left at Nyquist."""
    total = 0
    for center, height in zip(CENTERS, HEIGHTS, strict=True):
        z, y, x = (
            np.exp(-0.5 * ((at + voxel * np.arange(n) - c) / 2.4) ** 2)
            for n, at, c in zip(shape, first, center, strict=True)
        )
        total = total + height * z[:, None, None] * y[:, None] * x
    return total


def write(path, array, voxel=VOXEL, *, origin=(0, 0, 0), start=(0, 0, 0), axes=(1, 2, 3), dtype=np.float32, edit=None):
    """A map written by mrcfile; `array` is (z, y, x), `origin` and `start` (x, y, z), whatever the file's order is."""
    with mrcfile.new(path, overwrite=True) as file:
        slowest_first = [3 - axis for axis in axes[::-1]]
        file.set_data(np.ascontiguousarray(np.transpose(array, slowest_first), dtype))
        file.header.mapc, file.header.mapr, file.header.maps = axes
        file.header.mx, file.header.my, file.header.mz = array.shape[::-1]
        file.header.cella = tuple(side * voxel for side in array.shape[::-1])
        file.header.origin = tuple(origin)
        file.header.nxstart, file.header.nystart, file.header.nzstart = (start[axis - 1] for axis in axes)
        if edit:
            edit(file.header)
    return path


@pytest.fixture
def half_map(tmp_path):
    """Makes the entry's half-map 1, the density with as much noise, with a header of one's choice."""

    def make(**header):
        noise = np.random.default_rng(8).normal(0, density().std(), SHAPE)
        return read_map(write(tmp_path / "half_map_1.mrc", density() + noise, **header))

    return make


def error(found, expected):
    """Root of the mean square error, relative to the expected density's."""
    return np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))


def refused(path, like, *words):
    with pytest.raises(UserError) as caught:
        read_resampled(path, like)
    assert "\n" not in str(caught.value)
    for word in (path.name, *words):
        assert word in str(caught.value)


def test_a_map_on_the_same_grid_is_unchanged(tmp_path, half_map):
    like = half_map(origin=ORIGIN)
    found = read_resampled(write(tmp_path / "topaz.mrc", 37 * density() + 5, origin=ORIGIN), like)
    np.testing.assert_array_equal(found.map.array, (37 * density() + 5).astype(np.float32))
    assert found.how == "as it is"
    assert found.map.header is like.header


@pytest.mark.parametrize("start", [(0, 0, 0), (-22, -18, -20)])
@pytest.mark.parametrize("shape", [(80, 72, 88), (60, 54, 66), (50, 45, 55)])
def test_finer_sampling_of_the_same_box_is_cropped_in_fourier_space(tmp_path, half_map, shape, start):
    like, voxel = half_map(start=start), SIDES[0] / shape[0]
    place = tuple(VOXEL * step for step in start)
    found = read_resampled(write(tmp_path / "full.mrc", density(shape, voxel), voxel, origin=place), like)
    assert error(found.map.array, density()) < 1e-5
    assert found.how == f"Fourier-cropped from {'x'.join(map(str, shape))} at {voxel:.4g} Å"


@pytest.mark.parametrize("shape", [(80, 72, 88), (20, 18, 22)])
@pytest.mark.parametrize("wave", [(3, 0, 0), (0, -4, 2), (9, 5, -7), (0, 0, 11), (10, 0, 0)])
def test_waves_up_to_the_lower_nyquist_keep_height_and_phase(tmp_path, half_map, shape, wave):
    def sampled(box):
        z, y, x = (np.arange(n) / n for n in box)
        return np.cos(2 * np.pi * (wave[0] * z[:, None, None] + wave[1] * y[:, None] + wave[2] * x))

    found = read_resampled(write(tmp_path / "full.mrc", sampled(shape), SIDES[0] / shape[0]), half_map())
    np.testing.assert_allclose(found.map.array, sampled(SHAPE), atol=2e-6)
    assert found.how.startswith("Fourier-cropped from 80x" if shape[0] == 80 else "Fourier-padded from 20x")


def test_waves_beyond_the_nyquist_of_the_entry_are_cut_off(tmp_path, half_map):
    wave = np.cos(2 * np.pi * 25 * np.arange(80) / 80)[:, None, None]
    found = read_resampled(write(tmp_path / "full.mrc", wave + density((80, 72, 88), 0.75), 0.75), half_map())
    assert error(found.map.array, density()) < 1e-5


@pytest.mark.parametrize("shape", [(60, 54, 66), (61, 54, 65)])
def test_map_resampled_to_one_angstrom_as_emready_writes_it(tmp_path, half_map, shape):
    like, start = half_map(origin=ORIGIN), tuple(round(value) for value in ORIGIN)
    first = [at - value for at, value in zip(start[::-1], ORIGIN[::-1], strict=True)]
    path = write(tmp_path / "full.mrc", density(shape, 1, first), 1, start=start)
    assert error(read_resampled(path, like).map.array, density()) < 1e-3
    clipped = np.clip(density(shape, 1, first), 0, None)
    found = read_resampled(write(path, clipped, 1, start=start), like)
    assert error(found.map.array, np.clip(density(), 0, None)) < 0.01  # a kink has no band limit
    assert found.how.startswith(f"interpolated from {shape[0]}x54x{shape[2]} at 1 Å")


def test_sum_of_origin_and_nstart_is_recognized(tmp_path, half_map):
    """If both fields give the same place, a program that adds them up gives twice that place."""
    like = half_map(origin=(15, -9, 30), start=(10, -6, 20))
    array = density((60, 54, 66), 1, (0.25, 0.25, 0.25))
    found = read_resampled(write(tmp_path / "full.mrc", array, 1, origin=(30.25, -17.75, 60.25)), like)
    assert error(found.map.array, density()) < 1e-3
    assert "sum of the half-map's ORIGIN and NSTART" in found.how


@pytest.mark.parametrize("header", [{"start": (-22, -18, -20)}, {"origin": (3, -1.5, 4.5)}, {"origin": ORIGIN}])
def test_origin_set_to_zero_is_taken_as_the_entrys(tmp_path, half_map, header):
    like = half_map(**header)
    found = read_resampled(write(tmp_path / "full.mrc", density()), like)
    np.testing.assert_array_equal(found.map.array, density().astype(np.float32))
    assert found.how.startswith("as it is, its origin of 0, 0, 0 Å taken as the half-map's of ")


def test_nstart_kept_with_half_the_voxel_size_as_lafter_writes_it(tmp_path, half_map):
    like = half_map(start=(-4, -6, -2))
    path = write(tmp_path / "lafter.mrc", density((80, 72, 88), 0.75), 0.75, start=(-4, -6, -2))
    found = read_resampled(path, like)
    assert error(found.map.array, density()) < 1e-5
    assert found.how == (
        "Fourier-cropped from 80x72x88 at 0.75 Å, "
        "its origin of -3, -4.5, -1.5 Å taken as the half-map's of -6, -9, -3 Å"
    )


def test_float16_map_is_read(tmp_path, half_map):
    path = write(tmp_path / "full.mrc", density((80, 72, 88), 0.75), 0.75, dtype=np.float16)
    assert error(read_resampled(path, half_map()).map.array, density()) < 5e-4  # float16 rounds to 2^-11


@pytest.mark.parametrize("axes", [(2, 1, 3), (3, 1, 2), (3, 2, 1)])
def test_other_axis_order_is_read(tmp_path, half_map, axes):
    like = half_map(start=(-22, -18, -20), axes=(2, 3, 1))
    shape, start = (60, 54, 66), (-33, -27, -30)
    path = write(tmp_path / "full.mrc", density(shape, 1), 1, start=start, axes=axes)
    found = read_resampled(path, like)
    assert error(found.map.array, density()) < 1e-5
    assert found.how == "Fourier-cropped from 60x54x66 at 1 Å"


def test_cropped_box_is_put_in_its_place_with_the_level_of_its_border(tmp_path, half_map):
    like = half_map(origin=ORIGIN)
    first, inside = (6, 5, 8), (slice(6, 35), slice(5, 32), slice(8, 38))
    array = density()[inside] + 7
    place = [value + VOXEL * at for value, at in zip(ORIGIN, first[::-1], strict=True)]
    found = read_resampled(write(tmp_path / "full.mrc", array, origin=place), like)
    expected = np.full(SHAPE, np.median(found.map.array), np.float32)
    expected[inside] = array
    np.testing.assert_allclose(found.map.array, expected, atol=1e-6)
    assert abs(np.median(found.map.array) - 7) < 0.05
    assert found.how.startswith("set into the box from 29x27x30 at 1.5 Å")


def test_padded_box_is_cut(tmp_path, half_map):
    like = half_map(start=(-22, -18, -20))
    array = density((50, 50, 50), VOXEL, (-6, -9, -3))
    found = read_resampled(write(tmp_path / "full.mrc", array, start=(-24, -24, -24)), like)
    np.testing.assert_array_equal(found.map.array, density().astype(np.float32))
    assert found.how == "cut from 50x50x50 at 1.5 Å"


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("voxel", [1.0, 1.3, 1.5])
def test_interpolation_up_to_seven_tenths_of_nyquist(tmp_path, half_map, share, voxel):
    """Waves of that share of the lower Nyquist frequency along each axis; unlike the half-map, so left in place."""
    k = share * 0.5 / max(voxel, VOXEL)

    def sampled(shape, size, first):
        z, y, x = (np.cos(2 * np.pi * k * (at + size * np.arange(n)) + 1) for n, at in zip(shape, first, strict=True))
        return z[:, None, None] * y[:, None] * x

    shape = tuple(round((side + 9) / voxel) for side in SIDES)
    path = write(tmp_path / "full.mrc", sampled(shape, voxel, (-4.1, -3.7, -4.4)), voxel, origin=(-4.4, -3.7, -4.1))
    found = read_resampled(path, half_map())
    inner = (slice(12, -12),) * 3  # beyond the box nothing is known of a wave
    assert error(found.map.array[inner], sampled(SHAPE, VOXEL, (0, 0, 0))[inner]) < 0.005


def no_cell(header):
    header.cella = (0, 0, 0)


def bare(header):
    """As Topaz writes a header of its own."""
    header.mx = header.my = header.mz = 1
    header.cella, header.cellb, header.ispg = (1, 1, 1), (0, 0, 0), 0


@pytest.mark.parametrize("edit", [no_cell, bare])
def test_missing_voxel_size_is_taken_as_the_entrys(tmp_path, half_map, edit):
    found = read_resampled(write(tmp_path / "full.mrc", density(), edit=edit), half_map())
    np.testing.assert_array_equal(found.map.array, density().astype(np.float32))
    assert found.how == "as it is, its voxel size, missing in its header, taken as 1.5 Å"
    path = write(tmp_path / "full.mrc", density((80, 72, 88), 0.75), edit=edit, axes=(3, 1, 2))
    found = read_resampled(path, half_map())
    assert error(found.map.array, density()) < 1e-5
    assert found.how.endswith("missing in its header, taken as 0.75 Å")


@pytest.mark.parametrize("shape", [SHAPE, (80, 72, 88)])
@pytest.mark.parametrize("voxel", [0.755, 1.0, 1.6])  # the first one rounded, or in error by 0.4 Å over the box
def test_wrong_voxel_size_is_taken_as_the_entrys(tmp_path, half_map, shape, voxel):
    right = SIDES[0] / shape[0]
    found = read_resampled(write(tmp_path / "full.mrc", density(shape, right), voxel), half_map())
    assert error(found.map.array, density()) < 1e-5
    assert f"its voxel size of {voxel:.4g} Å taken as {right:.4g} Å" in found.how


def test_float32_under_a_header_of_float16_as_topaz_writes_it(tmp_path, half_map):
    path = write(tmp_path / "full.mrc", density(), edit=lambda header: setattr(header, "mode", 12))
    found = read_resampled(path, half_map())
    np.testing.assert_array_equal(found.map.array, density().astype(np.float32))
    assert found.how.startswith("as it is, its voxels read as float32")


def test_map_of_another_place_or_scale_is_refused(tmp_path, half_map):
    like = half_map(origin=ORIGIN)
    path = write(tmp_path / "full.mrc", density((30, 30, 30)), origin=(500, 500, 500))
    refused(path, like, "at least 90%", "found 0% of it, by 30x30x30 voxels of 1.5 Å", "487.7, 507.5, 469.6 Å")
    write(path, 1e20 * density((10, 10, 10)), 15, origin=ORIGIN)  # of which the tail of a blob is there
    refused(path, like, "0.2 to 5 times the half-map's 1.5 Å", "found 10x10x10 voxels of 15 Å", "set the right")
    noise = np.random.default_rng(1).normal(size=SHAPE)  # of the same shape, but not by its voxel size, and not alike
    refused(write(path, noise, 1, origin=ORIGIN), like, "% of it, by 40x36x44 voxels of 1 Å")
    refused(write(path, density((50, 45, 55), 1.2), 0.8, origin=ORIGIN), like, "by 50x45x55 voxels of 0.8 Å")
    refused(write(path, density((44, 44, 44)), origin=(0, 0, -99)), like, "% of it, by 44x44x44 voxels of 1.5 Å")


def test_map_of_a_part_is_refused_with_its_share(tmp_path, half_map):
    path = write(tmp_path / "full.mrc", density()[:22])
    refused(path, half_map(), "at least 90%", "% of it, by 22x36x44 voxels", "set voxel size, ORIGIN and NSTART")
    mask = np.zeros(SHAPE, np.float32)
    mask[15:25, 10:20, 10:20] = 1
    with pytest.raises(UserError, match="found 70% of it"):
        read_resampled(path, half_map(), mask=mask)
    mask[22:] = 0
    assert read_resampled(path, half_map(), mask=mask).how.startswith("set into the box")


def test_unusable_maps_are_refused(tmp_path, half_map):
    like, path = half_map(), tmp_path / "full.mrc"
    write(path, density())
    path.write_bytes(path.read_bytes()[:-4] + np.float32(np.nan).tobytes())
    refused(path, like, "1 NaN")
    refused(write(path, np.zeros(SHAPE)), like, "in every voxel")
    refused(write(path, density(), edit=lambda header: setattr(header, "cellb", (90, 90, 120))), like, "90 degrees")
    refused(write(path, density((30, 40, 44)), edit=no_cell), like, "voxel size above 0")
    path.write_bytes(write(path, density(), edit=no_cell).read_bytes()[:-8])
    refused(path, like, "cut short")
    path.write_text("no map")
    refused(path, like, "not an MRC/CCP4 map")
    refused(tmp_path / "absent.mrc", like, "no such file")


def score(array, entry):
    """Mean FSC to the truth, masked, shells 1 to N/2 - 1."""
    truth, mask = (read_map(entry / name) for name in ("truth.mrc", "mask.mrc"))
    return fsc_curve(array, truth.array, truth.voxel_size, mask.array).fsc[1:-1].mean()


def test_lafter_scores_the_same_at_both_samplings(shared, tmp_path):
    entry = shared / "bench" / "7yc8"
    like = read_map(entry / "half_map_1.mrc")
    plain, upsampled = (entry / "outputs" / name / "full.mrc" for name in ("lafter", "lafter_upsampled"))
    found = [read_resampled(path, like) for path in (plain, upsampled)]
    assert [output.how for output in found] == ["as it is", "Fourier-cropped from 192x192x192 at 0.8 Å"]
    scores = [score(output.map.array, entry) for output in found]
    assert abs(scores[0] - 0.6871) < 0.002  # by a separate program
    assert abs(scores[1] - scores[0]) < 0.002

    # By splines at 1 Å, in a box cut to whole Å, with its origin 3 Å from the entry's.
    finer = read_map(upsampled).array
    at = [(np.arange(148) + 3) / 0.8] * 3
    resampled = scipy.ndimage.map_coordinates(finer, np.meshgrid(*at, indexing="ij"), order=3, mode="nearest")
    path = write(tmp_path / "full.mrc", np.clip(resampled, 0, None), 1, start=(3, 3, 3))
    interpolated = read_resampled(path, like)
    assert interpolated.how.startswith("interpolated from 148x148x148 at 1 Å")
    assert abs(score(interpolated.map.array, entry) - score(np.clip(found[1].map.array, 0, None), entry)) < 0.005
