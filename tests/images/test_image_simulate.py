"""Simulated sets: what they hold, that they are what the numbers say, and RELION's view of them."""

import shutil
import subprocess
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
from images.conftest import PIXEL_SIZE, write

from crefjax.errors import UserError
from crefjax.images.sets import CLEAN, EVEN, NOISY, ODD, ImageSet
from crefjax.images.simulate import ImageConfig, simulate_images
from crefjax.io.maps import read_map
from crefjax.io.star import read_star
from crefjax.simulate.imaging import CtfParameters
from crefjax.spectral.fsc import fsc_curve


def stacks(opened):
    return [opened.stack(name).read(slice(None)) for name in (NOISY, EVEN, ODD, CLEAN)]


def test_a_set_has_stacks_of_one_shape_and_a_row_for_each_image(particles):
    noisy, even, odd, clean = stacks(particles)
    assert noisy.shape == even.shape == odd.shape == clean.shape == (40, 32, 32)
    np.testing.assert_allclose(noisy, (even + odd) / 2, atol=1e-6)
    with mrcfile.open(particles.path / NOISY) as file:
        assert file.is_image_stack()
        assert file.voxel_size.x == PIXEL_SIZE
    rows = read_star(particles.path / "images.star")["particles"]
    assert rows["rlnImageName"][:2] == ["000001@images.mrcs", "000002@images.mrcs"]
    assert len(rows["rlnAnglePsi"]) == 40


def test_noise_of_the_halves_is_that_of_the_electrons(particles):
    _, even, odd, clean = stacks(particles)
    electrons = 1000 * PIXEL_SIZE**2 * 0.85
    assert particles.record["electrons_per_pixel"] == pytest.approx(electrons)
    assert np.var((even - odd) / 2) == pytest.approx(1 / electrons, rel=0.02)
    # What both halves share beside the signal is ice, which does not correlate with it.
    shared = (even - clean).astype(float)
    assert abs(np.corrcoef(shared.ravel(), clean.ravel())[0, 1]) < 0.03


def test_signal_is_bright_in_particle_images_and_dark_in_micrographs(particles, micrographs):
    *_, clean = stacks(particles)
    assert particles.sign == 1
    assert clean[:, 12:20, 12:20].mean() > 3 * abs(clean[:, :4].mean())
    *_, clean = stacks(micrographs)
    assert micrographs.sign == -1
    y, x = np.round(micrographs.particles_of(0)).astype(int).T
    around = np.mean([clean[0, a - 3 : a + 4, b - 3 : b + 4] for a, b in zip(y, x, strict=True)])
    assert around < 3 * clean[0].mean() < 0


def test_particles_of_a_micrograph_are_apart_and_whole(micrographs):
    for number in range(2):
        places = micrographs.particles_of(number)
        assert 3 <= len(places) <= 12
        radius = micrographs.record["diameter"] / PIXEL_SIZE / 2
        assert places.min() >= np.floor(radius)
        assert places.max() <= 192 - np.floor(radius)
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(len(places))
        assert apart.min() >= 2 * radius


def test_expected_intensity_of_a_micrograph_is_background_and_signal(micrographs):
    noisy, _, _, clean = stacks(micrographs)
    background = micrographs.stack("background.mrcs").read(slice(None))
    electrons = micrographs.record["electrons_per_pixel"]
    expected = background + clean
    # Poisson: the difference over its standard deviation has variance 1.
    assert np.mean((noisy - expected) ** 2 / (expected / electrons)) == pytest.approx(1, rel=0.03)
    assert background.min() < 0.8  # carbon and crystals


def test_preferred_views_are_those_of_particles_and_micrographs_alike(tmp_path, specimen):
    """Half of the views lie within 31 degrees of z at a concentration of 5, and within 90 at 0: `rlnAngleTilt`."""
    for kind, block, options in (
        ("particles", "images.star", {"count": 60, "side": 32}),
        ("micrographs", "particles.star", {"count": 2, "side": 256, "micrographs": True, "particles": 30, "carbon": 0}),
    ):
        folder = write(tmp_path / kind, specimen, ImageConfig(PIXEL_SIZE, preferred=5.0, crystals=0.0, **options))
        tilts = np.array(read_star(folder / block)["particles"]["rlnAngleTilt"], float)
        assert len(tilts) >= 20, kind
        assert np.median(tilts) == pytest.approx(31, abs=12), kind


def test_an_image_depends_on_its_seed_and_number_alone(specimen):
    config = ImageConfig(PIXEL_SIZE, 3, side=32, seed=5, dose=1000.0)
    few, many = (list(simulate_images(specimen, replace(config, count=count))) for count in (3, 35))
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(a.even, b.even)
        assert a.row == b.row
    other = next(simulate_images(specimen, replace(config, seed=6)))
    assert np.abs(other.clean - few[0].clean).max() > 0.1 * few[0].clean.std()


def test_empty_images_have_no_signal(tmp_path, specimen):
    folder = write(tmp_path / "empty", specimen, ImageConfig(PIXEL_SIZE, 2, side=32, empty=True))
    with ImageSet(folder) as opened:
        noisy, _, _, clean = stacks(opened)
        assert not clean.any()
        assert noisy.std() > 0.02
        assert opened.truth() is None
        assert opened.record["particles"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dose": 0.0}, "expected dose of 0.1 to 10000 electrons per Å², found 0"),
        ({"mtf": 1.5}, "expected mtf of 0.01 to 1"),
        ({"side": 31}, "even side, found 31"),
        ({"side": 8}, "expected a side of 16 to 16384"),
        ({"ctf": CtfParameters(voltage=-1.0)}, "voltage"),
    ],
)
def test_impossible_parameters_are_refused(specimen, change, message):
    config = ImageConfig(**({"pixel_size": PIXEL_SIZE, "count": 1} | change))
    with pytest.raises(UserError, match=message):
        simulate_images(specimen, config)


def test_images_smaller_than_the_particle_are_refused(specimen):
    with pytest.raises(UserError, match="phantom: expected images of at least"):
        simulate_images(specimen._replace(diameter=200.0), ImageConfig(PIXEL_SIZE, 1, side=32))


def test_damaged_sets_are_refused_in_one_line(tmp_path, particle_folder):
    folder = tmp_path / "set"
    with pytest.raises(UserError, match=r"expected a set of images with a set\.json"):
        ImageSet(folder)
    shutil.copytree(particle_folder, folder)
    (folder / ODD).unlink()
    with pytest.raises(UserError, match=r"odd\.mrcs: expected a stack of images"):
        ImageSet(folder)
    shutil.copy(particle_folder / ODD, folder / ODD)
    text = (folder / "set.json").read_text()
    (folder / "set.json").write_text(text.replace('"bright"', '"gray"'))
    with pytest.raises(UserError, match=r"expected a set of images with a set\.json"):
        ImageSet(folder)
    (folder / "set.json").write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(UserError, match="expected format version 1, found 9"):
        ImageSet(folder)


@pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="needs RELION's relion_reconstruct")
def test_relion_reconstructs_the_truth(tmp_path, specimen):
    """Angles, shifts, CTF, astigmatism, and the place of the particle are what RELION understands by them."""
    config = ImageConfig(PIXEL_SIZE, 160, side=32, dose=10000.0, structure_factor=0.0, astigmatism=6000.0)
    folder = write(tmp_path / "set", specimen, config)
    command = ["relion_reconstruct", "--i", "images.star", "--o", "found.mrc", "--ctf", "--j", "1"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    truth = read_map(folder / "truth.mrc").array
    found = read_map(folder / "found.mrc", voxel_size=PIXEL_SIZE).array[4:28, 4:28, 4:28]
    assert fsc_curve(found, truth, PIXEL_SIZE).fsc[1:9].min() > 0.9
