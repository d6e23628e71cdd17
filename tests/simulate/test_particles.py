"""Particle sets, against slow sums in NumPy and RELION's formulas written out."""

import itertools
import json

import mrcfile
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.io.star import euler_angles, find_numbers, read_star
from crefjax.simulate.half_maps import SimulationConfig
from crefjax.simulate.imaging import CtfParameters, Particles
from crefjax.simulate.particles import simulate_particles, write_particles
from crefjax.simulate.phantom import phantom

SIDE, VOXEL = 24, 3.0
FILES = {"particles.star", "particles.mrcs", "poses.star", "truth.mrc", "mask.mrc", "model.cif", "particles.json"}


def config(count=6, ctf=None, shift=0.0, seed=1):
    particles = Particles(count=count, shift_error=shift, ctf=ctf)
    return SimulationConfig(VOXEL, seed=seed, box=SIDE, method="particles", particles=particles)


def relion_matrix(rot, tilt, psi):
    """RELION's Euler_angles2matrix, on (x, y, z)."""
    a, b, g = np.deg2rad([rot, tilt, psi])
    ca, cb, cg, sa, sb, sg = np.cos(a), np.cos(b), np.cos(g), np.sin(a), np.sin(b), np.sin(g)
    return np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


@pytest.fixture(scope="module")
def atoms():
    return phantom(20, seed=1)


@pytest.fixture(scope="module")
def clean(atoms, tmp_path_factory):
    """A set with hardly any noise, without a CTF, and its folder."""
    folder = tmp_path_factory.mktemp("clean") / "set"
    write_particles(folder, simulate_particles(atoms, config(shift=4.0), 1e6))
    return folder


def read(folder, name):
    with mrcfile.open(folder / name) as file:
        return np.array(file.data)


@pytest.mark.parametrize("angles", list(itertools.product([-170, -30, 0, 100], [0, 5, 90, 179, 180], [-120, 0, 45])))
def test_angles_are_those_of_relions_matrix(angles):
    matrix = relion_matrix(*angles)
    found = euler_angles(matrix[np.newaxis, ::-1, ::-1])[0]
    np.testing.assert_allclose(relion_matrix(*found), matrix, atol=1e-9)
    assert 0 <= found[1] <= 180


def test_an_image_is_the_shifted_sum_of_the_rotated_density(clean):
    """The Fourier transform of a projection, straight from its definition, at a few frequencies."""
    truth, images = read(clean, "truth.mrc").astype(np.float64), read(clean, "particles.mrcs").astype(np.float64)
    table = read_star(clean / "poses.star")["particles"]
    columns = ("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst")
    poses = np.stack([find_numbers(table, f"rln{name}", "f") for name in columns], -1)
    grid = np.arange(SIDE) - SIDE // 2
    z, y, x = np.meshgrid(grid, grid, grid, indexing="ij")
    assert np.abs(poses[:, 3:]).max() > 2
    for image, pose in zip(images, poses, strict=True):
        matrix = relion_matrix(*pose[:3])
        for k_x, k_y in ((1, 0), (0, 2), (3, -2), (5, 4)):
            # Where a voxel lies in the image: rotated, and then where the particle is, at minus RELION's origin.
            here = [
                matrix[row, 0] * x + matrix[row, 1] * y + matrix[row, 2] * z - pose[3 + row] / VOXEL for row in (0, 1)
            ]
            expected = np.sum(truth * np.exp(-2j * np.pi / SIDE * (k_x * here[0] + k_y * here[1])))
            waves = np.exp(-2j * np.pi / SIDE * (k_x * grid[np.newaxis] + k_y * grid[:, np.newaxis]))
            assert np.sum(image * waves) == pytest.approx(expected, abs=0.01 * np.abs(truth).sum() + SIDE * 4)


def test_the_signal_to_noise_ratio_is_the_one_asked_for(atoms, clean, tmp_path):
    noisy = simulate_particles(atoms, config(count=40, ctf=CtfParameters()), 0.5)
    write_particles(tmp_path / "noisy", noisy)
    without = simulate_particles(atoms, config(count=40, ctf=CtfParameters()), 1e6)
    write_particles(tmp_path / "clean", without)
    # The same poses and noise: what is scaled is the signal.
    signal = read(tmp_path / "clean", "particles.mrcs") * np.sqrt(0.5 / 1e6)
    noise = read(tmp_path / "noisy", "particles.mrcs") - signal
    assert signal.var(axis=(1, 2)).mean() == pytest.approx(0.5, rel=0.01)
    assert noise.std() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(
        read(tmp_path / "noisy", "truth.mrc"), read(tmp_path / "clean", "truth.mrc") * np.sqrt(0.5 / 1e6), rtol=1e-4
    )


def test_images_of_noise_alone_have_no_signal(atoms, tmp_path):
    write_particles(tmp_path / "noise", simulate_particles(atoms, config(count=20), 0.0))
    images = read(tmp_path / "noise", "particles.mrcs")
    assert images.std() == pytest.approx(1, abs=0.03)
    assert np.abs(images.mean(0)).max() < 1.1  # 20 images: a standard deviation of 0.22
    assert read(tmp_path / "noise", "truth.mrc").std() > 0


def test_the_files_say_what_a_microscope_knows_and_the_poses_beside(clean):
    assert {path.name for path in clean.iterdir()} == FILES
    known, true = read_star(clean / "particles.star"), read_star(clean / "poses.star")
    assert known["optics"] == true["optics"]
    assert float(known["optics"]["rlnImagePixelSize"][0]) == VOXEL
    assert known["optics"]["rlnImageSize"] == [str(SIDE)]
    assert known["particles"]["rlnImageName"][5] == "000006@particles.mrcs"
    assert "rlnDefocusU" not in known["particles"]
    assert set(true["particles"]) - set(known["particles"]) == {
        *("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    }
    assert json.loads((clean / "particles.json").read_text())["parameters"]["particles"]["count"] == 6
    assert mrcfile.validate(clean / "particles.mrcs")


def test_defocus_is_written_with_a_ctf(atoms, tmp_path):
    optics = CtfParameters(9000.0, 9500.0, voltage=200.0)
    write_particles(tmp_path / "set", simulate_particles(atoms, config(ctf=optics), 1.0))
    blocks = read_star(tmp_path / "set" / "particles.star")
    defocus = find_numbers(blocks["particles"], "rlnDefocusU", "f")
    assert ((defocus >= 9000) & (defocus <= 9500)).all()
    assert float(blocks["optics"]["rlnVoltage"][0]) == 200


def test_a_set_is_replaced_only_on_request(clean, atoms):
    with pytest.raises(UserError, match="exists"):
        write_particles(clean, simulate_particles(atoms, config(), 1.0))


@pytest.mark.parametrize("snr", [-1, 1e9, float("nan")])
def test_impossible_ratios_are_refused(atoms, snr):
    with pytest.raises(UserError, match="signal-to-noise ratio"):
        simulate_particles(atoms, config(), snr)
