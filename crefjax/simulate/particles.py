"""A particle set as RELION reads it: a stack of simulated images and its STAR file, with the truth and the true poses.

An image is the projection of the specimen's density along z after a rotation, times the contrast transfer function,
shifted, with white noise of standard deviation 1, as RELION normalizes images: the noise of counting many electrons.
The density is scaled so that the images have the signal-to-noise ratio asked for, and the truth is written on that
scale. The conventions (angles, origins, sign of the CTF, intensity) are RELION's: `relion_reconstruct` from
`poses.star` gives back the truth.

Images are simulated, written, and discarded batch by batch.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from crefjax import __version__
from crefjax.errors import UserError
from crefjax.io.files import check_output_folder
from crefjax.io.stacks import write_stack
from crefjax.io.star import euler_angles, optics_table, write_star
from crefjax.simulate.atoms import Atoms
from crefjax.simulate.half_maps import (
    PlacedSpecimen,
    SimulationConfig,
    describe_parameters,
    place_specimen,
    simulated_folder,
    write_parameters,
    write_specimen,
)
from crefjax.simulate.imaging import (
    CtfParameters,
    ParticlePoses,
    image_ctf,
    images_of_slices,
    sample_particle_poses,
    shift_phases,
    split_into_batches,
)
from crefjax.simulate.reconstruction import oversampled_spectrum, project
from crefjax.utils.progress import ProgressCallback

STACK, PARTICLES, POSES, REPORT = "particles.mrcs", "particles.star", "poses.star", "particles.json"
_BATCH = 64
_MEASURED = 256  # images of which the power of the signal is measured
_LARGEST_SNR = 1e6


@dataclass(frozen=True, eq=False)
class ParticleSet:
    """The content of a particle set, before it is written.

    Attributes:
        specimen: truth, mask, and model in the box; the truth on the scale of the images.
        poses: of all particles.
        config: parameters with which it was made.
        snr: variance of the noise-free images over that of their noise, in the whole image.
        model_options: how the model was read or made, for `particles.json`.
    """

    specimen: PlacedSpecimen
    poses: ParticlePoses
    config: SimulationConfig
    snr: float
    _spectrum: jax.Array = field(repr=False)
    model_options: dict = field(default_factory=dict)

    @property
    def optics(self) -> CtfParameters | None:
        """Return the optics; None for images without a CTF."""
        return self.config.particles.ctf


def simulate_particles(atoms: Atoms, config: SimulationConfig, snr: float) -> ParticleSet:
    """Place a model in its box, draw the poses of its particles, and scale its density.

    Args:
        atoms: the model.
        config: with the method `particles`; its `particles.count` is the number of images, and their offsets from the
            middle of the image have the standard deviation `particles.shift_error` along each axis.
        snr: signal-to-noise ratio of the images, CTF included: variance of the signal in the whole image over that of
            the noise; 0 for images of noise alone.

    Raises:
        UserError: a parameter is out of range, or the box is too small for the model.
    """
    if not 0 <= snr <= _LARGEST_SNR:
        raise UserError(f"simulate: expected a signal-to-noise ratio of 0 to {_LARGEST_SNR:g}, found {snr:g}")
    config.particles.check()
    specimen = place_specimen(atoms, config)
    poses = sample_particle_poses(jax.random.fold_in(jax.random.key(config.seed), 1), config.particles)
    spectrum = jax.jit(oversampled_spectrum)(jnp.asarray(specimen.truth))
    scale = np.sqrt(snr / _signal_variance(spectrum, poses, config)) if snr > 0 else 0.0
    # Images of noise alone keep a truth to compare a reconstruction with.
    specimen = specimen.rescaled(scale if snr > 0 else 1.0)
    return ParticleSet(specimen, poses, config, snr, spectrum * jnp.float32(scale))


def write_particles(
    folder: Path | str, particles: ParticleSet, *, overwrite: bool = False, progress: ProgressCallback | None = None
) -> None:
    """Write a particle set as a folder, in which RELION can be started; it appears complete or not at all.

    Files: `particles.star` (what a microscope and a picker would know) and `particles.mrcs`; `poses.star`, the same
    with the true angles and origins; `truth.mrc`, `mask.mrc`, `model.cif`, and `particles.json` with every parameter.

    Args:
        folder: output folder; its parent must exist.
        particles: the set.
        overwrite: whether to replace an existing particle set, with everything in it.
        progress: called with the share of the images that is written.

    Raises:
        UserError: `check_particle_folder` fails, or the folder cannot be written; then nothing is left behind.
    """
    check = functools.partial(check_particle_folder, folder, overwrite=overwrite)
    with simulated_folder(Path(folder), check) as hidden:
        _write_files(hidden, particles, progress)


def check_particle_folder(folder: Path | str, *, overwrite: bool = False, inputs: Iterable[Path | str] = ()) -> None:
    """Check, before long work, that a particle set can be written, as `check_output_folder` does."""
    check_output_folder(folder, "a particle set", REPORT, overwrite=overwrite, inputs=tuple(inputs))


def _signal_variance(spectrum, poses, config):
    """Return the mean over images of the variance of their signal's pixels."""
    some = jax.tree.map(lambda array: array[:_MEASURED], poses)
    total = 0.0
    for batch in split_into_batches(some, _BATCH):
        clean = _clean_images(spectrum, batch, config.voxel_size, config.particles.ctf)
        total += float(jnp.sum(batch.counts * jnp.var(clean, axis=(1, 2))))
    return total / len(some.counts)


@functools.partial(jax.jit, static_argnums=3)
def _clean_images(spectrum, poses, voxel_size, optics):
    """Return the images without noise, `(images, y, x)`."""
    side = len(spectrum) // 2
    values = project(spectrum, poses.rotation) * image_ctf(poses, side, voxel_size, optics)
    values *= shift_phases(poses.shift, side, voxel_size)
    return images_of_slices(values, side)


@functools.partial(jax.jit, static_argnums=3)
def _noisy_images(spectrum, poses, voxel_size, optics):
    clean = _clean_images(spectrum, poses, voxel_size, optics)
    return clean + jax.vmap(lambda key: jax.random.normal(key, clean.shape[1:]))(poses.key)


def _write_files(folder, particles, progress):
    config, specimen = particles.config, particles.specimen
    side, count = len(specimen.truth), len(particles.poses.counts)
    with write_stack(folder / STACK, count, side, config.voxel_size) as append:
        for number, batch in enumerate(split_into_batches(particles.poses, _BATCH)):
            images = _noisy_images(particles._spectrum, batch, config.voxel_size, particles.optics)
            append(np.asarray(images)[: int(batch.counts.sum())])
            if progress is not None:
                progress(min((number + 1) * _BATCH / count, 1.0))
    optics = optics_table(particles.optics or CtfParameters(), config.voxel_size, side)
    known = _particle_table(particles)
    write_star(folder / PARTICLES, {"optics": optics, "particles": known})
    write_star(folder / POSES, {"optics": optics, "particles": known | _pose_table(particles.poses)})
    maps = {"truth": specimen.truth, "mask": specimen.mask}
    write_specimen(folder, maps, specimen.atoms, config.voxel_size)
    report = {
        "program": f"crefjax {__version__}",
        "model": specimen.atoms.source,
        "model_options": particles.model_options,
        "atoms": len(specimen.atoms),
        "shift": [float(value) for value in specimen.shift],
        "box": side,
        "snr": particles.snr,
        "parameters": describe_parameters(config),
    }
    write_parameters(folder / REPORT, report)


def _particle_table(particles):
    count = len(particles.poses.counts)
    table = {
        "rlnImageName": [f"{number:06d}@{STACK}" for number in range(1, count + 1)],
        "rlnMicrographName": ["simulated.mrc"] * count,
        "rlnOpticsGroup": [1] * count,
    }
    if particles.optics is not None:
        defocus = np.asarray(particles.poses.defocus, np.float64)
        table |= {"rlnDefocusU": defocus, "rlnDefocusV": defocus, "rlnDefocusAngle": [0.0] * count}
    return table


def _pose_table(poses):
    rot, tilt, psi = euler_angles(np.asarray(poses.rotation)).T
    # RELION's origin is the shift that brings the particle to the middle.
    y, x = -np.asarray(poses.shift, np.float64).T
    return {"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": psi, "rlnOriginXAngst": x, "rlnOriginYAngst": y}
