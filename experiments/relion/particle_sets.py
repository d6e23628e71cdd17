"""Make particle sets on disk: simulated ones, and their variants that hold no signal beyond a frequency, or none."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from crefjax.io.stacks import ImageStack, write_stack
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
    random = np.random.default_rng(seed)
    with ImageStack(source / STACK) as stack:
        (side, _), voxel_size = stack.shape, stack.pixel_size
        y, x = np.fft.fftfreq(side, voxel_size)[:, None], np.fft.rfftfreq(side, voxel_size)[None]
        _randomize(stack, hidden / STACK, np.hypot(y, x) > 1 / beyond, random)
    hidden.rename(folder)


def _randomize(stack, path, chosen, random):
    """Write the images of a stack with random phases at the chosen frequencies of the half-spectrum."""
    with write_stack(path, stack.count, stack.shape, stack.pixel_size) as append:
        for first in range(0, stack.count, _PART):
            images = stack.read(slice(first, first + _PART))
            # The phases of a real image's transform, so that Friedel pairs stay pairs.
            other = np.fft.rfft2(random.standard_normal(images.shape))
            spectra = np.fft.rfft2(images)
            spectra = np.where(chosen, np.abs(spectra) * np.exp(1j * np.angle(other)), spectra)
            append(np.fft.irfft2(spectra, s=stack.shape))
