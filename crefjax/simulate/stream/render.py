"""A batch of half-map pairs made on the device, by one compiled function of fixed shapes.

A patch must look as if it was cut from a larger map. It is therefore simulated in a box with at least `MARGIN` more
voxels on each side, which are cut off at the end. The box is periodic, as Fourier transforms are: what atoms near one
border spread comes in on the other, and what atoms beyond it would spread is missing. Six voxels are four deviations
of an atom of B = 110 Å² at 0.8 Å a voxel. Left are the ripples of well-ordered atoms beyond the box, from the sharp end
of the spectrum at Nyquist: they make about 1 % of the density's deviation. The noise is cut from the same box, and
at twelve voxels none of the spectra is correlated: it does not run on from one face of the patch to the opposite one.
The mask looks farther, 9 voxels beyond the low-passed body. That density is smooth, and is made apart on a grid of
twice the voxel size that reaches at least 12 voxels beyond the patch.
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
from crefjax.simulate.specimen import EXTEND, SOFT_EDGE, Belt
from crefjax.simulate.stream.draw import BODY_LOWPASS, AtomTable, SampleSpec
from crefjax.spectral.shells import box_shells, half_spectrum, shell_means
from crefjax.spectral.windows import raised_cosine

MARGIN = 6  # voxels
EXTRAS = ("belt", "flexible", "low_passed")
_BODY_MARGIN = 12  # voxels, of the grid on which the body is found
_EDGE = math.ceil(EXTEND + SOFT_EDGE)  # voxels that the mask reaches beyond the body
_SMOOTHING = 2.5  # shells on either side of the resolution, over which signal and noise are compared
_MIN_BODY = 0.03  # of the window; what is missing is put in, for the level, as the mean of many atoms
_ATOM_DENSITY = 0.025  # atoms per Å³ within a mask, which is wider than the protein (0.05); found on its patches
_LEAST_SIGNAL = 0.1  # of what so many atoms would give: where all are less ordered, the resolution is not reached
_FLEXIBLE_EDGE = 5.0  # Å, over which a flexible part begins
_MODULATION = 16  # voxels of the grid on which the noise's unevenness is drawn; 12 of them are used


class Maps(NamedTuple):
    """`(batch, z, y, x)` each, and the `(batch,)` deviations of the noise in a half-map."""

    half_map_1: jax.Array
    half_map_2: jax.Array
    mask: jax.Array
    truth: jax.Array
    noise_std: jax.Array


def box_side(patch: int) -> int:
    """Voxels of the box in which a patch is simulated."""
    return next_fast_len(patch + 2 * MARGIN)


def body_side(patch: int) -> int:
    """Voxels, twice as wide, of the grid on which the body is found."""
    return next_fast_len(patch / 2 + _BODY_MARGIN)


@functools.partial(jax.jit, static_argnames=("patch", "extras", "vectorize", "whole_map"))
def render_batch(
    models: AtomTable,
    drawn: SampleSpec,
    seed: jax.Array,
    *,
    patch: int,
    extras: frozenset[str],
    vectorize: bool,
    whole_map: bool = False,
) -> Maps:
    """Make a batch.

    Args:
        models: the atoms of all models.
        drawn: the batch, from `draw.collate`.
        seed: of the stream, uint32.
        patch: voxels.
        extras: which of `belt`, `flexible` and `low_passed` any sample may have; the others cost no time.
        vectorize: whether the samples are made side by side (quick on a GPU) or one after the other (on a CPU, where a
            sample then does not depend on the batch it is in to the last bit).
        whole_map: whether the noise is that of a map of the whole model, or what brings each patch to its resolution.
    """
    key = jax.random.key(seed)

    def one(sample):
        return _simulate_one(models, sample, jax.random.fold_in(key, sample.info.position), patch, extras, whole_map)

    return jax.vmap(one)(drawn) if vectorize else lax.map(one, drawn)


def _simulate_one(models, sample, key, patch, extras, whole_map):
    keys = jax.random.split(key, 4)
    atoms = patch_atoms(models, sample)
    truth = patch_density(atoms, sample, patch)
    if "flexible" in extras:
        truth = _flexible(truth, sample)
    smooth = _smooth(atoms, sample, patch)
    if "belt" in extras:
        coarse = _belt(keys[3], smooth, sample)
        smooth, truth = smooth + coarse, truth + _resample(coarse, patch, len(truth))
    mask = _mask(_resample(smooth, patch, patch + 2 * _EDGE), sample.body_level)
    noises = unit_noises(keys[:2], sample, patch)
    factor = _factor(keys[2], sample, patch)
    if whole_map:
        level = sample.info.noise
    else:
        level = _level(_crop(truth, patch), mask, _crop(noises[0], patch), factor, sample)
    boxes = jnp.concatenate([truth[None], noises])
    if "low_passed" in extras:
        boxes = jax.vmap(lambda one: _filtered(one, sample.passed, sample))(boxes)
    signal, *noises = (_crop(one, patch) for one in boxes)
    halves = (signal + one * (factor * level) for one in noises)
    return Maps(*halves, mask, _crop(truth, patch), level)


def patch_atoms(models: AtomTable, sample: SampleSpec) -> Scatterers:
    """The sample's atoms, turned, at their distance in Å from the middle of the patch."""
    info = sample.info
    offsets = models.positions[sample.atoms] - info.center[None]
    turned = jnp.matmul(offsets, info.rotation.T, precision=lax.Precision.HIGHEST)
    return Scatterers(turned, models.weights[sample.atoms], models.widths[info.model])


def patch_density(atoms: Scatterers, sample: SampleSpec, patch: int) -> jax.Array:
    """The density in the box."""
    side, info = box_side(patch), sample.info
    origin = jnp.full(3, -side / 2) * info.voxel_size
    return density(atoms, (side,) * 3, info.voxel_size, origin=origin, b_factor=info.b_factor)


def unit_noises(keys: jax.Array, sample: SampleSpec, patch: int) -> jax.Array:
    """Two noises of variance 1 in the box, `(2, z, y, x)`."""
    spectrum, side = NoiseSpectrum(sample.frequency, sample.amplitude), box_side(patch)
    return jax.vmap(lambda one: colored_noise(one, (side,) * 3, sample.info.voxel_size, spectrum))(keys)


def _smooth(atoms, sample, patch):
    """The density low-passed to 10 Å, of all atoms as if they had no width of their own but the mean one."""
    side, voxel_size = body_side(patch), 2 * sample.info.voxel_size
    points = Scatterers(atoms.positions, atoms.weights.sum(1, keepdims=True), jnp.zeros(1))
    origin = jnp.full(3, -side / 2) * voxel_size
    return density(points, (side,) * 3, voxel_size, origin=origin, b_factor=8 * BODY_LOWPASS**2)


def _belt(key, smooth, sample):
    """A belt as in `specimen.belt_density`, on the grid of the low-passed density."""
    side, voxel_size, belt = len(smooth), 2 * sample.info.voxel_size, Belt()
    line = (jnp.arange(side) - side / 2) * voxel_size
    along = [line.reshape(shape) for shape in ((1, 1, -1), (1, -1, 1), (-1, 1, 1))]
    height = sum(sample.axis[i] * along[i] for i in range(3)) - sample.height
    reach = 14  # voxels: the belt's width at the finest voxels that are usual
    outwards = jnp.sqrt(_squared_distance(smooth > sample.body_level, reach, "keep")) * voxel_size
    shape = _fall(jnp.abs(height) - belt.thickness / 2) * _fall(outwards - belt.width)
    random = low_passed_noise(key, smooth.shape, voxel_size, belt.resolution)
    level = sample.info.belt * sample.body_mean
    return level * shape * (1 - _fall(outwards - 1.5)) * (1 + belt.roughness * random)


def _flexible(truth, sample):
    """The density, blurred beyond the sample's plane."""
    falloff = jnp.exp(-sample.info.flexible_b * jnp.square(sample.frequency) / 4)
    line = (jnp.arange(len(truth)) - len(truth) / 2) * sample.info.voxel_size
    along = [line.reshape(shape) for shape in ((1, 1, -1), (1, -1, 1), (-1, 1, 1))]
    beyond = sum(sample.plane[i] * along[i] for i in range(3)) - sample.plane[3]
    share = 0.5 + 0.5 * jnp.tanh(beyond / _FLEXIBLE_EDGE)
    return truth + share * (_filtered(truth, falloff, sample) - truth)


def _filtered(box, amplitude, sample):
    """A box whose amplitudes are multiplied by a curve over the sample's frequencies."""
    frequency = _frequencies(len(box)) / sample.info.voxel_size
    factor = jnp.interp(frequency, sample.frequency, amplitude)
    return jnp.fft.irfftn(jnp.fft.rfftn(box) * factor, box.shape)


def _frequencies(side):
    """How far each coefficient of a cube's half-spectrum is from the origin, 1 / voxels."""
    whole, half = np.square(np.fft.fftfreq(side)), np.square(np.fft.rfftfreq(side))
    return np.sqrt(whole[:, None, None] + whole[:, None] + half).astype(np.float32)


def _fall(distance):
    return 0.5 - 0.5 * jnp.tanh(distance / 1.5)


def _mask(smooth, body_level):
    """Return the mask of `specimen.truth_mask`, from the low-passed density in `_EDGE` more voxels on each side."""
    beyond = jnp.sqrt(_squared_distance(smooth > body_level, _EDGE, "cut")) - EXTEND
    return raised_cosine(beyond / SOFT_EDGE, xp=jnp)


def _squared_distance(body, reach, border):
    """The squared distance in voxels to a body, if not beyond `reach`: the lowest of parabolas along every axis.

    Felzenszwalb & Huttenlocher 2012 (Theory of Computing 8, 415), with as many parabolas as count. The border, of
    `reach` voxels, is either cut off or kept.
    """
    far = jnp.float32(2 * reach**2)
    squared = jnp.where(body, 0.0, far)
    for axis in range(3):
        if border == "keep":
            width = [(reach, reach) if one == axis else (0, 0) for one in range(3)]
            squared = jnp.pad(squared, width, constant_values=far)
        length = squared.shape[axis] - 2 * reach
        shifted = (
            lax.slice_in_dim(squared, step, step + length, axis=axis) + jnp.float32((step - reach) ** 2)
            for step in range(2 * reach + 1)
        )
        squared = functools.reduce(jnp.minimum, shifted)
    return squared


def _factor(key, sample, patch):
    """The unevenness of the noise over the patch, drawn on a coarse grid of which a part is used: no periodicity."""
    grid = modulation(key, (_MODULATION,) * 3, sample.info.unevenness)
    where = (np.arange(patch) + 0.5) * (0.75 * _MODULATION / patch)
    return _stretch(grid, _linear(where, _MODULATION))


def _resample(coarse, patch, side):
    """A map on the grid of twice the voxel size, on the patch's grid: the `side` voxels about the patch's middle."""
    where = (np.arange(side) - side // 2) / 2 + len(coarse) / 2
    return _stretch(coarse, _linear(where, len(coarse)))


def _linear(where, side):
    """The matrix of linear interpolation at positions in voxels, `(positions, side)`."""
    weights = np.maximum(1 - np.abs(np.clip(where, 0, side - 1)[:, None] - np.arange(side)), 0)
    return weights.astype(np.float32)


def _stretch(grid, matrix):
    return jnp.einsum("zyx,iz,jy,kx->ijk", grid, matrix, matrix, matrix, precision=lax.Precision.HIGHEST)


def _crop(box, patch):
    start = (len(box) - patch) // 2
    return lax.slice(box, (start,) * 3, (start + patch,) * 3)


def window(patch: int) -> np.ndarray:
    """What falls off to 0 at the borders of a patch, as a raised cosine over an eighth of the side; float32."""
    edge = patch // 8
    from_border = np.minimum(np.arange(patch) + 0.5, patch - np.arange(patch) - 0.5)
    line = raised_cosine(from_border / edge, rising=True)
    return (line[:, None, None] * line[:, None] * line).astype(np.float32)


def _level(truth, mask, noise, factor, sample):
    """The deviation of the noise at which the FSC is expected to be 0.143 at the resolution asked for.

    In shells of signal power `S` and power `N` of noise of deviation 1, half-maps are expected to have the FSC
    `S / (S + level² N)`; hence `level² = S / N (1 - 0.143) / 0.143`. Both are those of the patch under its mask and
    `window`: at a sharp border the signal would leak into all shells, in both half-maps. The ratio is smoothed over
    shells, in its logarithm, which is nearly straight there.

    A patch that has next to nothing in its mask would give next to no noise, but noise is that of the whole map. There
    the signal is filled up with atoms at random places (Wilson 1949), whose power is the sum of theirs.
    """
    patch, voxel_size = len(truth), sample.info.voxel_size
    taper = window(patch)
    shells = box_shells(truth.shape)
    spectra = half_spectrum(jnp.stack([truth * mask, noise]) * taper[None])
    signal, noise_power = shell_means(jnp.square(spectra.real) + jnp.square(spectra.imag), shells)
    weight = jnp.square(mask * taper)
    energy = float(np.sum(np.square(taper, dtype=np.float64)))
    missing = jnp.maximum(_MIN_BODY * patch**3 - weight.sum(), 0)
    usual = sample.atom_power * _ATOM_DENSITY / voxel_size**3
    signal = jnp.maximum(signal, _LEAST_SIGNAL * usual * weight.sum()) + missing * usual
    noise_power *= (jnp.sum(weight * jnp.square(factor)) + missing) / energy
    wanted = patch * voxel_size / sample.info.resolution
    shell = np.arange(shells.count)
    near = jnp.maximum(1 - jnp.abs(shell - wanted) / _SMOOTHING, 0) * (shell > 0)
    log_ratio = jnp.sum(near * jnp.log(signal / noise_power)) / near.sum()
    return jnp.exp(0.5 * (log_ratio + math.log(1 / THRESHOLD - 1)))
