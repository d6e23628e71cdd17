"""RELION itself: it reads a simulated particle set, and refines it with this program in the loop."""

import shutil
import subprocess

import numpy as np
import pytest
from reference.losses import cov
from reference.losses import fsc as slow_fsc

from crefjax.io.maps import read_map
from crefjax.relion.external import read_volume
from crefjax.simulate.half_maps import SimulationConfig
from crefjax.simulate.imaging import CtfParameters, Particles
from crefjax.simulate.particles import simulate_particles, write_particles
from crefjax.simulate.phantom import phantom
from experiments.relion.run import is_installed, refine

pytestmark = pytest.mark.skipif(not is_installed(), reason="needs RELION and mpirun on the path")


def make_set(folder, *, count, snr, box=32, voxel_size=3.0, residues=150):
    particles = Particles(count=count, shift_error=3.0, ctf=CtfParameters(6000.0, 12000.0))
    config = SimulationConfig(voxel_size, seed=2, box=box, method="particles", particles=particles)
    write_particles(folder, simulate_particles(phantom(residues, seed=1), config, snr))


def relion(folder, *words):
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="needs relion_reconstruct on the path")
def test_relion_reconstructs_the_truth_from_the_true_poses(tmp_path):
    make_set(tmp_path / "set", count=400, snr=100.0)
    said = relion(tmp_path / "set", "relion_reconstruct", "--i", "poses.star", "--o", "rec.mrc", "--ctf", "--pad", "2")
    assert "WARNING" not in said
    truth = read_map(tmp_path / "set" / "truth.mrc").array
    found = read_volume(tmp_path / "set" / "rec.mrc", truth.shape)
    mask = read_map(tmp_path / "set" / "mask.mrc").array
    truth, found = truth * mask, found * mask
    assert (slow_fsc(truth, found)[1:12] > 0.98).all()
    # The intensity is RELION's too.
    np.testing.assert_allclose((cov(truth, found) / cov(truth, truth))[2:12], 1, atol=0.05)


@pytest.mark.slow
def test_a_refinement_with_the_denoiser_in_its_loop_converges(tmp_path):
    folder = tmp_path / "set"
    make_set(folder, count=120, snr=1.0)
    refine(folder, "run", diameter=80, seed=1, combine="trailing")
    run, truth, mask = folder / "run", read_map(folder / "truth.mrc").array, read_map(folder / "mask.mrc").array
    logs = {path.name: path.read_text() for path in run.glob("*_external_reconstruct.log")}
    for half in (1, 2):
        lines = [text for name, text in logs.items() if f"_half{half}_" in name]
        assert any(text.startswith("trailing: ") for text in lines), logs
    (joined,) = (path for path in run.glob("run_it*_class001_external_reconstruct.star") if "half" not in path.name)
    own = read_volume(joined.with_suffix(".mrc"), truth.shape)
    denoised = read_volume(run / f"{joined.stem}_denoised.mrc", truth.shape)
    for array in (own, denoised):
        assert slow_fsc(array * mask, truth * mask)[1:7].min() > 0.8
    assert not np.allclose(own, denoised)
