"""Experiments with RELION: what is measured of a refinement, with poses that are known."""

import json
import shutil

import mrcfile
import numpy as np
import pytest
from helpers.relion_files import write_mrc
from scipy.spatial.transform import Rotation

from crefjax.io.maps import read_map
from crefjax.io.star import read_star, write_star
from crefjax.simulate.half_maps import SimulationConfig
from crefjax.simulate.imaging import Particles
from crefjax.simulate.particles import simulate_particles, write_particles
from crefjax.simulate.phantom import phantom
from experiments.relion import entries
from experiments.relion.measure import aligned_truth, find_frame, matrices
from experiments.relion.particle_sets import randomize_phases

COUNT, SIDE, VOXEL = 60, 24, 3.0


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("relion") / "set"
    images = Particles(count=COUNT, shift_error=2.0, ctf=None)
    config = SimulationConfig(VOXEL, seed=1, box=SIDE, method="particles", particles=images)
    write_particles(folder, simulate_particles(phantom(20, seed=1), config, 1.0))
    return folder


def refined(folder, path, *, rotation, shift, degrees, offset):
    """Write poses that see the truth rotated and shifted, with errors of a known size."""
    random = np.random.default_rng(0)
    blocks = read_star(folder / "poses.star")
    table = dict(blocks["particles"])
    axes = random.normal(size=(COUNT, 3))
    errors = Rotation.from_rotvec(np.deg2rad(degrees) * axes / np.linalg.norm(axes, axis=1, keepdims=True)).as_matrix()
    known = matrices(table, path)
    poses = known @ rotation.T @ errors
    rot, tilt, psi = Rotation.from_matrix(poses.transpose(0, 2, 1)).as_euler("ZYZ", degrees=True).T
    moved = np.einsum("nij,j->ni", poses, shift)[:, :2]
    directions = random.uniform(0, 2 * np.pi, COUNT)
    moved += offset * np.stack([np.cos(directions), np.sin(directions)], -1)
    table |= {"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": psi}
    for axis, column in enumerate(("rlnOriginXAngst", "rlnOriginYAngst")):
        table[column] = np.array(table[column], float) + moved[:, axis]
    order = random.permutation(COUNT)
    write_star(path, {"particles": {name: np.array(values)[order] for name, values in table.items()}})


def below_nyquist(array):
    spectrum = np.fft.fftn(array)
    for axis in range(3):
        np.moveaxis(spectrum, axis, 0)[SIDE // 2] = 0
    return np.fft.ifftn(spectrum).real


def test_errors_of_pose_are_found_beside_a_common_motion(particles, tmp_path):
    rotation, shift = Rotation.from_euler("ZYX", [8, -5, 3], degrees=True).as_matrix(), np.array([1.5, -2.0, 0.7])
    refined(particles, tmp_path / "run_data.star", rotation=rotation, shift=shift, degrees=2.0, offset=0.4)
    frame = find_frame(particles / "poses.star", tmp_path / "run_data.star")
    assert np.rad2deg(Rotation.from_matrix(frame.rotation @ rotation.T).magnitude()) < 0.7  # 2 degrees by root of 60
    np.testing.assert_allclose(frame.shift, shift, atol=0.2)
    assert np.median(frame.angles) == pytest.approx(2.0, abs=0.3)
    assert np.median(frame.offsets) == pytest.approx(0.4, abs=0.15)


def test_without_errors_nothing_is_left(particles, tmp_path):
    rotation, shift = Rotation.from_euler("ZYX", [40, 20, -10], degrees=True).as_matrix(), np.array([0.0, 3.0, 0.0])
    refined(particles, tmp_path / "run_data.star", rotation=rotation, shift=shift, degrees=0.0, offset=0.0)
    frame = find_frame(particles / "poses.star", tmp_path / "run_data.star")
    assert frame.angles.max() < 0.01
    assert frame.offsets.max() < 0.01


def test_the_truth_is_rotated_and_shifted_as_the_particles_were(particles, tmp_path):
    """A quarter turn about z, and one voxel along x, which are exact on the grid."""
    rotation, shift = Rotation.from_euler("Z", 90, degrees=True).as_matrix(), np.array([VOXEL, 0.0, 0.0])
    refined(particles, tmp_path / "run_data.star", rotation=rotation, shift=shift, degrees=0.0, offset=0.0)
    truth, mask = aligned_truth(particles, find_frame(particles / "poses.star", tmp_path / "run_data.star"))
    with mrcfile.open(particles / "truth.mrc") as file:
        before = np.array(file.data)
    # (x, y) goes to (-y, x) about the middle voxel, N / 2; index -i % N is its mirror image there.
    mirrored = before[:, -np.arange(SIDE) % SIDE]
    expected = np.roll(mirrored.transpose(0, 2, 1), 1, axis=2)
    # At Nyquist the grid does not tell a wave from its mirror image.
    np.testing.assert_allclose(below_nyquist(truth), below_nyquist(expected), atol=0.01 * before.max())
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_phases_are_random_beyond_a_frequency_and_amplitudes_stay(particles, tmp_path):
    randomize_phases(particles, tmp_path / "random", 12.0, seed=3)
    assert sorted(path.name for path in (tmp_path / "random").iterdir()) == sorted(
        path.name for path in particles.iterdir()
    )
    spectra = []
    for folder in (particles, tmp_path / "random"):
        with mrcfile.open(folder / "particles.mrcs") as file:
            spectra.append(np.fft.fft2(file.data))
    y, x = np.meshgrid(*[np.fft.fftfreq(SIDE, VOXEL)] * 2, indexing="ij")
    beyond = np.hypot(y, x) > 1 / 12.0
    scale = np.abs(spectra[0]).max()
    np.testing.assert_allclose(spectra[1][:, ~beyond], spectra[0][:, ~beyond], atol=1e-5 * scale)
    inner = beyond & (np.abs(y) < 0.5 / VOXEL) & (np.abs(x) < 0.5 / VOXEL)
    np.testing.assert_allclose(np.abs(spectra[1][:, inner]), np.abs(spectra[0][:, inner]), atol=1e-4 * scale)
    common = np.sum(spectra[0] * np.conj(spectra[1]), axis=0).real[inner].sum()
    assert abs(common) < 0.05 * np.sum(np.abs(spectra[0][:, inner]) ** 2)


def test_a_refinement_becomes_an_entry(particles, tmp_path):
    rotation, shift = Rotation.from_euler("Z", 90, degrees=True).as_matrix(), np.array([VOXEL, 0.0, 0.0])
    source = tmp_path / "runs" / "set"
    shutil.copytree(particles, source)
    run = source / "plain"
    run.mkdir()
    (run / "times.json").write_text("{}")
    refined(source, run / "run_data.star", rotation=rotation, shift=shift, degrees=1.0, offset=0.0)
    random = np.random.default_rng(0)
    halves = [random.normal(size=(SIDE,) * 3).astype(np.float32) for _ in range(2)]
    for half, array in enumerate(halves, start=1):
        write_mrc(run / f"run_half{half}_class001_unfil.mrc", array)
    assert entries.main([str(tmp_path / "runs"), "-o", str(tmp_path / "entries")]) == 0
    entry = tmp_path / "entries" / "set"
    for half, array in enumerate(halves, start=1):
        map_ = read_map(entry / f"half_map_{half}.mrc")
        np.testing.assert_array_equal(map_.array, array)
        assert map_.voxel_size == pytest.approx(VOXEL)
    info = json.loads((entry / "refinement.json").read_text())
    assert info["particles"] == COUNT
    assert info["angle_median"] == pytest.approx(1.0, abs=0.2)
    assert {"truth.mrc", "mask.mrc"} <= {path.name for path in entry.iterdir()}
    assert entries.main([str(tmp_path / "nothing"), "-o", str(tmp_path / "entries")]) == 2
