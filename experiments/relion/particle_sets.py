"""Make particle sets on disk: simulated ones, and their variants that hold no signal beyond a frequency, or none."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from crefjax.io.stacks import read_images, write_stack
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.half_maps import SimulationConfig
from crefjax.simulate.imaging import Particles
from crefjax.simulate.particles import STACK, simulate_particles, write_particles
from experiments.relion.specimens import ParticleSpec, find_model

_PART = 64


def make_particles(folder: Path, spec: ParticleSpec, models: Path, seed: int) -> None:
    """Simulate a particle set, unless it is there."""
    if folder.is_dir():
        return
    atoms = read_atoms(find_model(models, spec))
    images = Particles(count=spec.particles, shift_error=spec.shift)
    config = SimulationConfig(spec.voxel_size, seed=seed, box=spec.box, method="particles", particles=images)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_particles(folder, simulate_particles(atoms, config, spec.snr))


def make_noise(folder: Path, spec: ParticleSpec, models: Path, seed: int) -> None:
    """Simulate images of noise alone; the truth beside is what the reference would be."""
    make_particles(folder, replace(spec, snr=0.0), models, seed)


def randomize_phases(source: Path, folder: Path, beyond: float, seed: int) -> None:
    """Copy a particle set with the phases of its images randomized beyond a resolution, unless it is there.

    Signal and noise keep their power; what correlates beyond afterwards was made up.

    Args:
        source: a particle set.
        folder: to write.
        beyond: Å.
        seed: of the phases.
    """
    if folder.is_dir():
        return
    hidden = folder.with_name(f".{folder.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir()
    for path in source.iterdir():
        if path.is_file() and path.name != STACK:  # folders are refinements of the source
            shutil.copy(path, hidden)
    from crefjax.io.maps import read_map

    truth = read_map(source / "truth.mrc")
    side, voxel_size = len(truth.array), truth.voxel_size
    count = (source / STACK).stat().st_size // (4 * side**2)
    random = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(side, voxel_size)[:, None], np.fft.rfftfreq(side, voxel_size)[None]
    chosen = np.hypot(y, x) > 1 / beyond
    with write_stack(hidden / STACK, count, side, voxel_size) as append:
        for first in range(1, count + 1, _PART):
            images = read_images(source / STACK, np.arange(first, min(first + _PART, count + 1)))
            # The phases of a real image's transform, so that Friedel pairs stay pairs.
            other = np.fft.rfft2(random.standard_normal(images.shape))
            spectra = np.fft.rfft2(images)
            spectra = np.where(chosen, np.abs(spectra) * np.exp(1j * np.angle(other)), spectra)
            append(np.fft.irfft2(spectra, s=(side, side)))
    hidden.rename(folder)
