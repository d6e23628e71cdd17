"""The device's part of the stream: a batch of half-map pairs, by one compiled function of fixed shapes.

A patch must look as if it was cut from a larger map. It is therefore simulated in a box with at least `MARGIN` more
voxels on each side, which are cut off at the end. The box is periodic, as Fourier transforms are: the density of atoms
near one border appears at the opposite one, and that of atoms beyond it is missing. Six voxels are four standard
deviations of an atom of B = 110 Å² at 0.8 Å a voxel. What remains are the ripples of well-ordered atoms beyond the box,
from the sharp end of the spectrum at Nyquist: they make about 1 % of the density's standard deviation. The noise is cut
from the same box, and is uncorrelated at twelve voxels for all spectra: it does not continue from one face of the patch
to the opposite one. The mask depends on density farther away, 9 voxels beyond the low-passed body. That density is
smooth, and is computed separately on a grid of twice the voxel size that reaches at least 12 voxels beyond the patch.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from crefjax.simulate.density import Scatterers, density, next_fast_len
from crefjax.simulate.noise import THRESHOLD, NoiseSpectrum, colored_noise, low_passed_noise, modulation
from crefjax.simulate.specimen import EXTEND, SOFT_EDGE, Belt, BulkSolvent
from crefjax.simulate.stream.draw import SampleSpec
from crefjax.simulate.stream.models import BODY_LOWPASS, AtomTable
from crefjax.spectral.shells import box_shells, half_spectrum, shell_means
from crefjax.spectral.windows import border_window, raised_cosine

MARGIN = 6  # voxels
EXTRAS = ("belt", "flexible", "bulk_solvent", "low_passed")
_BODY_MARGIN = 12  # voxels, of the grid on which the body is found
_EDGE = math.ceil(EXTEND + SOFT_EDGE)  # voxels that the mask reaches beyond the body
_SMOOTHING = 2.5  # shells on either side of the resolution, over which signal and noise are compared
_MIN_BODY = 0.03  # of the window; for the noise level, missing body is filled with the mean of many atoms
_ATOM_DENSITY = 0.025  # atoms per Å³ within a mask, which is wider than the protein (0.05); found on its patches
_LEAST_SIGNAL = 0.1  # of that of typical atoms: where all are less ordered, the resolution is not reached
_FLEXIBLE_EDGE = 5.0  # Å, width of the transition to a flexible part
_MODULATION = 16  # voxels of the grid on which the noise's unevenness is drawn; 12 of them are used


class RenderedMaps(NamedTuple):
    """Maps, `(batch, z, y, x)` each, and the standard deviations of the noise in a half-map, `(batch,)`."""

    half_map_1: jax.Array
    half_map_2: jax.Array
    mask: jax.Array
    truth: jax.Array
    noise_std: jax.Array


def box_side(patch: int) -> int:
    """Return the side of the box in which a patch is simulated, voxels."""
    return next_fast_len(patch + 2 * MARGIN)


def body_side(patch: int) -> int:
    """Return the side of the grid on which the body is found, in voxels of twice the size."""
    return next_fast_len(patch / 2 + _BODY_MARGIN)


@functools.partial(jax.jit, static_argnames=("patch", "extras", "vectorize", "whole_map"))
def render_batch(
    models: AtomTable,
    samples: SampleSpec,
    seed: jax.Array,
    *,
    patch: int,
    extras: frozenset[str],
    vectorize: bool,
    whole_map: bool = False,
) -> RenderedMaps:
    """Compute a batch.

    Args:
        models: the atoms of all models.
        samples: the batch, from `draw.collate`.
        seed: of the stream, uint32.
        patch: voxels.
        extras: those of `EXTRAS` that any sample may have; the others cost no time.
        vectorize: whether samples are computed together (fast on a GPU) or one by one (on a CPU, where a sample then is
            the same in every batch to the last bit).
        whole_map: whether the noise is that of a map of the whole model; else it gives each patch its resolution.
    """
    key = jax.random.key(seed)

    def render(sample):
        return _render_sample(models, sample, jax.random.fold_in(key, sample.info.position), patch, extras, whole_map)

    return jax.vmap(render)(samples) if vectorize else lax.map(render, samples)


def _render_sample(models, sample, key, patch, extras, whole_map):
    keys = jax.random.split(key, 4)
    atoms = patch_atoms(models, sample)
    truth = patch_density(atoms, sample, patch)
    if "flexible" in extras:
        truth = _flexible(truth, sample)
    smooth = _smooth(atoms, sample, patch)
    if "belt" in extras:
        coarse = _belt(keys[3], smooth, sample)
        smooth, truth = smooth + coarse, truth + _resample(coarse, len(truth))
    if "bulk_solvent" in extras:
        truth = _filter(truth, _bulk_solvent(sample).factor(sample.frequency, jnp), sample)
    mask = _mask(_resample(smooth, patch + 2 * _EDGE), sample.body_level)
    noises = unit_noises(keys[:2], sample, patch)
    factor = _factor(keys[2], sample, patch)
    if whole_map:
        level = sample.info.noise
    else:
        level = _level(_crop(truth, patch), mask, _crop(noises[0], patch), factor, sample)
    boxes = jnp.concatenate([truth[None], noises])
    if "low_passed" in extras:
        boxes = jax.vmap(lambda box: _filter(box, sample.passed, sample))(boxes)
    signal, *noises = (_crop(box, patch) for box in boxes)
    halves = (signal + noise * (factor * level) for noise in noises)
    return RenderedMaps(*halves, mask, _crop(truth, patch), level)


def patch_atoms(models: AtomTable, sample: SampleSpec) -> Scatterers:
    """Return the sample's atoms, rotated, at their distance in Å from the middle of the patch."""
    info = sample.info
    offsets = models.positions[sample.atoms] - info.center[None]
    rotated = jnp.matmul(offsets, info.rotation.T, precision=lax.Precision.HIGHEST)
    return Scatterers(rotated, models.weights[sample.atoms], models.widths[info.model])


def patch_density(atoms: Scatterers, sample: SampleSpec, patch: int) -> jax.Array:
    """Return the density in the box."""
    side, info = box_side(patch), sample.info
    origin = jnp.full(3, -side / 2) * info.voxel_size
    return density(atoms, (side,) * 3, info.voxel_size, origin=origin, b_factor=info.b_factor)


def unit_noises(keys: jax.Array, sample: SampleSpec, patch: int) -> jax.Array:
    """Draw two noises of variance 1 in the box, `(2, z, y, x)`."""
    spectrum, side = NoiseSpectrum(sample.frequency, sample.amplitude), box_side(patch)
    return jax.vmap(lambda key: colored_noise(key, (side,) * 3, sample.info.voxel_size, spectrum))(keys)


def _smooth(atoms, sample, patch):
    """Return the density low-passed to 10 Å, of all atoms as if they were points."""
    side, voxel_size = body_side(patch), 2 * sample.info.voxel_size
    points = Scatterers(atoms.positions, atoms.weights.sum(1, keepdims=True), jnp.zeros(1))
    origin = jnp.full(3, -side / 2) * voxel_size
    return density(points, (side,) * 3, voxel_size, origin=origin, b_factor=8 * BODY_LOWPASS**2)


def _belt(key, smooth, sample):
    """Draw a belt as in `specimen.belt_density`, on the grid of the low-passed density."""
    side, voxel_size, belt = len(smooth), 2 * sample.info.voxel_size, Belt()
    line = (jnp.arange(side) - side / 2) * voxel_size
    along = [line.reshape(shape) for shape in ((1, 1, -1), (1, -1, 1), (-1, 1, 1))]
    height = sum(sample.axis[i] * along[i] for i in range(3)) - sample.height
    reach = 14  # voxels: the belt's width at the finest voxels that are usual
    outward = jnp.sqrt(_squared_distance(smooth > sample.body_level, reach, "keep")) * voxel_size
    shape = _fall(jnp.abs(height) - belt.thickness / 2) * _fall(outward - belt.width)
    random = low_passed_noise(key, smooth.shape, voxel_size, belt.resolution)
    level = sample.info.belt * sample.body_mean
    return level * shape * (1 - _fall(outward - 1.5)) * (1 + belt.roughness * random)


def _flexible(truth, sample):
    """Return the density, blurred beyond the sample's plane."""
    falloff = jnp.exp(-sample.info.flexible_b * jnp.square(sample.frequency) / 4)
    line = (jnp.arange(len(truth)) - len(truth) / 2) * sample.info.voxel_size
    along = [line.reshape(shape) for shape in ((1, 1, -1), (1, -1, 1), (-1, 1, 1))]
    beyond = sum(sample.plane[i] * along[i] for i in range(3)) - sample.plane[3]
    share = 0.5 + 0.5 * jnp.tanh(beyond / _FLEXIBLE_EDGE)
    return truth + share * (_filter(truth, falloff, sample) - truth)


def _bulk_solvent(sample):
    return BulkSolvent(sample.info.bulk_solvent_scale, sample.info.bulk_solvent_b)


def _filter(box, amplitude, sample):
    """Multiply the amplitudes of a box by a curve over the sample's frequencies."""
    frequency = _frequencies(len(box)) / sample.info.voxel_size
    factor = jnp.interp(frequency, sample.frequency, amplitude)
    return jnp.fft.irfftn(jnp.fft.rfftn(box) * factor, box.shape)


def _frequencies(side):
    """Return the frequencies of a cube's half-spectrum, 1 / voxels."""
    whole, half = np.square(np.fft.fftfreq(side)), np.square(np.fft.rfftfreq(side))
    return np.sqrt(whole[:, None, None] + whole[:, None] + half).astype(np.float32)


def _fall(distance):
    return 0.5 - 0.5 * jnp.tanh(distance / 1.5)


def _mask(smooth, body_level):
    """Return the mask of `specimen.truth_mask`, from the low-passed density in `_EDGE` more voxels on each side."""
    beyond = jnp.sqrt(_squared_distance(smooth > body_level, _EDGE, "cut")) - EXTEND
    return raised_cosine(beyond / SOFT_EDGE, xp=jnp)


def _squared_distance(body, reach, border):
    """Return the squared distance in voxels to a body, up to `reach`: the lowest of parabolas along every axis.

    Felzenszwalb & Huttenlocher 2012 (Theory of Computing 8, 415), with only the parabolas that matter. The border, of
    `reach` voxels, is either cut off or kept.
    """
    far = jnp.float32(2 * reach**2)
    squared = jnp.where(body, 0.0, far)
    for axis in range(3):
        if border == "keep":
            width = [(reach, reach) if other == axis else (0, 0) for other in range(3)]
            squared = jnp.pad(squared, width, constant_values=far)
        length = squared.shape[axis] - 2 * reach
        shifted = (
            lax.slice_in_dim(squared, step, step + length, axis=axis) + jnp.float32((step - reach) ** 2)
            for step in range(2 * reach + 1)
        )
        squared = functools.reduce(jnp.minimum, shifted)
    return squared


def _factor(key, sample, patch):
    """Draw the unevenness of the noise over the patch, on a part of a coarse grid so that it is not periodic."""
    grid = modulation(key, (_MODULATION,) * 3, sample.info.unevenness)
    where = (np.arange(patch) + 0.5) * (0.75 * _MODULATION / patch)
    return _stretch(grid, _linear(where, _MODULATION))


def _resample(coarse, side):
    """Resample a map of twice the voxel size to the patch's grid: the `side` voxels about the patch's middle."""
    where = (np.arange(side) - side // 2) / 2 + len(coarse) / 2
    return _stretch(coarse, _linear(where, len(coarse)))


def _linear(where, side):
    """Return the matrix of linear interpolation at positions in voxels, `(positions, side)`."""
    weights = np.maximum(1 - np.abs(np.clip(where, 0, side - 1)[:, None] - np.arange(side)), 0)
    return weights.astype(np.float32)


def _stretch(grid, matrix):
    return jnp.einsum("zyx,iz,jy,kx->ijk", grid, matrix, matrix, matrix, precision=lax.Precision.HIGHEST)


def _crop(box, patch):
    start = (len(box) - patch) // 2
    return lax.slice(box, (start,) * 3, (start + patch,) * 3)


def _border(patch: int) -> np.ndarray:
    """Return a window that falls to 0 at a patch's borders, over an eighth of the side; float32."""
    line = border_window(patch, patch // 8)
    return (line[:, None, None] * line[:, None] * line).astype(np.float32)


def _level(truth, mask, noise, factor, sample):
    """Return the noise's standard deviation at which the FSC is expected to be 0.143 at the sample's resolution.

    In shells of signal power `S` and power `N` of noise of standard deviation 1, half-maps are expected to have the FSC
    `S / (S + level² N)`; hence `level² = S / N (1 - 0.143) / 0.143`. Both are those of the patch under its mask and
    a window: at a sharp border the signal would leak into all shells, in both half-maps. The ratio is smoothed
    over shells, in its logarithm, which is nearly linear there.

    A patch with an almost empty mask would get almost no noise, although noise is that of the whole map. Its signal is
    therefore filled up with atoms at random places (Wilson 1949), whose power is the sum of theirs.
    """
    patch, voxel_size = len(truth), sample.info.voxel_size
    taper = _border(patch)
    shells = box_shells(truth.shape)
    spectra = half_spectrum(jnp.stack([truth * mask, noise]) * taper[None])
    signal, noise_power = shell_means(jnp.square(spectra.real) + jnp.square(spectra.imag), shells)
    weight = jnp.square(mask * taper)
    energy = float(np.sum(np.square(taper, dtype=np.float64)))
    missing = jnp.maximum(_MIN_BODY * patch**3 - weight.sum(), 0)
    typical = sample.atom_power * _ATOM_DENSITY / voxel_size**3
    signal = jnp.maximum(signal, _LEAST_SIGNAL * typical * weight.sum()) + missing * typical
    noise_power *= (jnp.sum(weight * jnp.square(factor)) + missing) / energy
    wanted = patch * voxel_size / sample.info.resolution
    shell = np.arange(shells.count)
    near = jnp.maximum(1 - jnp.abs(shell - wanted) / _SMOOTHING, 0) * (shell > 0)
    log_ratio = jnp.sum(near * jnp.log(signal / noise_power)) / near.sum()
    return jnp.exp(0.5 * (log_ratio + math.log(1 / THRESHOLD - 1)))
