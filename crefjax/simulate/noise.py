"""Gaussian noise of a chosen or measured spectrum, its unevenness, and the level that gives a resolution."""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from crefjax.errors import UserError
from crefjax.io.maps import Map
from crefjax.spectral.curves import THRESHOLD, resolution_at, shell_frequencies
from crefjax.spectral.shells import Shells, box_shells, half_spectrum, shell_means, shell_sums
from crefjax.spectral.windows import raised_cosine

LARGEST_CHANGE = 10.0  # factor on the noise's standard deviation by unevenness, in either direction
MIN_SOLVENT = 0.05  # least share of the box that must be solvent to measure a spectrum
TOLERANCE = 0.015  # of the resolution
_RANGE = 100.0  # factor above and below the first guess within which the level is searched


@functools.partial(jax.tree_util.register_dataclass, data_fields=["frequency", "amplitude"], meta_fields=["name"])
@dataclass(frozen=True, eq=False)
class NoiseSpectrum:
    """The amplitude of noise as a function of frequency; its scale does not matter.

    Attributes:
        frequency: `(n,)`, 1/Å, increasing.
        amplitude: `(n,)`, not negative; interpolated linearly, constant before the first and after the last.
        name: name for reports.
    """

    frequency: jax.Array | np.ndarray
    amplitude: jax.Array | np.ndarray
    name: str = ""


def white_spectrum() -> NoiseSpectrum:
    """Return the spectrum of white noise: the same amplitude at every frequency."""
    return NoiseSpectrum(np.array([0.0, 1.0], np.float32), np.ones(2, np.float32), "white")


def b_factor_spectrum(b_factor: float) -> NoiseSpectrum:
    """Return the spectrum `exp(-B s²/4)` of noise that was blurred (B in Å² above 0) or sharpened (below)."""
    s = np.linspace(0, 1.5, 3001)
    exponent = -b_factor * s**2 / 4
    return NoiseSpectrum(
        s.astype(np.float32), np.exp(exponent - exponent.max()).astype(np.float32), f"b_factor {b_factor:g}"
    )


def power_law_spectrum(exponent: float, *, level_below: float = 0.01) -> NoiseSpectrum:
    """Return a spectrum whose power falls as `s^-exponent`, constant below a frequency in 1/Å (0.01: 100 Å)."""
    s = np.concatenate([[0.0], np.geomspace(level_below, 2.0, 2000)])
    power = np.maximum(s, level_below) ** -float(exponent)
    amplitude = np.sqrt(power / power.max())
    return NoiseSpectrum(s.astype(np.float32), amplitude.astype(np.float32), f"power {exponent:g}")


def measured_spectrum(map_: Map, *, until: float | None = None) -> NoiseSpectrum:
    """Measure the spectrum of the noise in a real map's solvent.

    The solvent is outside the particle (`solvent_distance`), with a soft edge. Its spectrum is the mean power in every
    shell of the map so masked, after subtracting the mean of the solvent.

    Args:
        map_: a real map whose solvent was not masked.
        until: Å; at finer resolutions the noise is taken to be as strong as here. Deposited maps are often low-passed
            at their resolution, and beyond it do not have the noise of half-maps.

    Raises:
        UserError: the map has no solvent, or was masked; or `until` is not between the box's side and Nyquist.
    """
    array, name = np.asarray(map_.array, np.float32), map_.path or "the noise map"
    weight = _solvent_weights(array, map_.voxel_size, name)
    mean = np.average(array, weights=weight)
    shells = box_shells(array.shape)
    spectrum = half_spectrum(jnp.asarray((array - mean) * weight))
    power = np.asarray(shell_means(jnp.square(jnp.abs(spectrum)), shells), np.float64)
    frequency = shell_frequencies(array.shape, map_.voxel_size)
    if not power[1:].min() > 0:
        raise UserError(
            f"{name}: expected noise at every frequency in the solvent, found a shell without any; "
            "give a map that is not filtered"
        )
    last = len(power)
    if until is not None:
        if not 2 * map_.voxel_size <= until <= 1 / frequency[2]:
            raise UserError(
                f"{name}: its noise can be measured up to a resolution of {2 * map_.voxel_size:.3g} Å (Nyquist) to "
                f"{1 / frequency[2]:.3g} Å, found {until:g} Å; choose a resolution in this range"
            )
        last = int(np.searchsorted(frequency, 1 / until, "right"))
    amplitude = np.sqrt(power[1:last] / power[1:last].max())  # shell 0 is the mean, which was subtracted
    label = f"measured in {map_.path.name}" if map_.path else "measured"
    return NoiseSpectrum(frequency[1:last].astype(np.float32), amplitude.astype(np.float32), label)


@functools.partial(jax.jit, static_argnames="shape")
def colored_noise(key: jax.Array, shape: tuple[int, int, int], voxel_size, spectrum: NoiseSpectrum) -> jax.Array:
    """Draw Gaussian noise with the power `amplitude(s)²` at every frequency, scaled to an expected variance of 1.

    Args:
        key: random key of JAX.
        shape: `(z, y, x)` in voxels.
        voxel_size: Å; may be traced.
        spectrum: spectrum of the noise.

    Returns:
        `(z, y, x)`, float32, with a mean of exactly 0.
    """
    frequency = jnp.sqrt(_frequencies(shape)[0]) / voxel_size
    gain = jnp.interp(frequency, jnp.asarray(spectrum.frequency), jnp.asarray(spectrum.amplitude))
    return _noise_with_gain(key, shape, gain)


@functools.partial(jax.jit, static_argnames="shape")
def low_passed_noise(key: jax.Array, shape: tuple[int, int, int], voxel_size, resolution) -> jax.Array:
    """Draw Gaussian noise of variance 1 and mean 0 that falls off as `exp(-(s resolution)²)`, resolution in Å."""
    return _noise_with_gain(key, shape, jnp.exp(-_frequencies(shape)[0] * (resolution / voxel_size) ** 2))


def _noise_with_gain(key, shape, gain):
    """Filter white noise by a gain on the half spectrum, scaled to an expected variance of 1, with a mean of 0."""
    squared, weight = _frequencies(shape)
    gain = gain * (squared > 0)
    gain = gain / jnp.sqrt(jnp.sum(gain**2 * weight[None, None]) / math.prod(shape))
    return jnp.fft.irfftn(jnp.fft.rfftn(jax.random.normal(key, shape, jnp.float32)) * gain, s=shape)


@functools.partial(jax.jit, static_argnames="shape")
def modulation(key: jax.Array, shape: tuple[int, int, int], unevenness) -> jax.Array:
    """Draw a smooth map, of mean square 1, by which noise is multiplied to make it uneven over the box.

    Its logarithm is a random field that varies over about half of the longest side, with the standard deviation
    `unevenness`: 0 gives ones, 0.3 varies the noise's standard deviation by about a third.
    """
    longest = max(shape)
    field = low_passed_noise(key, shape, 1.0, longest / 1.5)
    field = field / jnp.std(field)
    factor = jnp.exp(jnp.clip(unevenness * field, -math.log(LARGEST_CHANGE), math.log(LARGEST_CHANGE)))
    return factor / jnp.sqrt(jnp.mean(factor**2))


def solvent_distance(array: np.ndarray, voxel_size: float) -> tuple[np.ndarray, float]:
    """Find the solvent: the distance of every voxel from the particle, and the resolution at which that was found.

    The particle is above four standard deviations of the solvent in the map low-passed to 15 Å (adapted to small boxes
    and large voxels). Regions of one constant value, where the map was masked, are not solvent either.

    Args:
        array: `(z, y, x)`, float32.
        voxel_size: Å.

    Returns:
        the distances, voxels, 0 where there is no solvent, infinite if all is solvent; and the low-pass, voxels.
    """
    lowpass = max(min(15.0, max(array.shape) * voxel_size / 5), 3 * voxel_size) / voxel_size
    smooth = ndimage.gaussian_filter(array, lowpass / math.pi)
    middle = float(np.median(smooth))
    below = smooth[smooth <= middle] - middle  # that side of the median has no particle
    excluded = np.abs(smooth - middle) > 4 * math.sqrt(float(np.mean(below**2)))
    values, counts = np.unique(array, return_counts=True)
    most_common = counts.argmax()
    if counts[most_common] >= 0.01 * array.size:
        excluded |= ndimage.binary_opening(array == values[most_common], np.ones((3, 3, 3)))
    if not excluded.any():
        return np.full(array.shape, np.inf), lowpass
    return ndimage.distance_transform_edt(~excluded), lowpass


def _solvent_weights(array, voxel_size, name):
    """Return weights, float32 in [0, 1], of the voxels outside the particle."""
    distance, lowpass = solvent_distance(array, voxel_size)
    weight = raised_cosine((distance - lowpass / 2) / max(3.0, lowpass / 3), rising=True)
    for fraction in (float(np.mean(distance > 0)), float(weight.mean())):
        if fraction < MIN_SOLVENT:
            raise UserError(
                f"{name}: expected unmasked solvent to measure noise in, at least {MIN_SOLVENT:.0%} of the box, found "
                f"{fraction:.1%}; give a map that was not masked, or choose a noise spectrum"
            )
    return weight.astype(np.float32)


def _frequencies(shape):
    """Return `(s voxel_size)²` on the half-spectrum of a box, float32, and the weights of the planes of x."""
    z, y = (np.fft.fftfreq(side).astype(np.float32) ** 2 for side in shape[:2])
    x = np.fft.rfftfreq(shape[2]).astype(np.float32) ** 2
    # By jnp: as a constant of a compiled function, the sum would be as large as a map and slow to compile.
    return jnp.asarray(z)[:, None, None] + y[None, :, None] + x[None, None], box_shells(shape).weight


class NoiseLevelSolver:
    """The masked FSC of `signal_i + level * noise_i`, `i = 1, 2`, as a function of the level.

    Everything is bilinear in the maps, so sums per shell that are computed once give the curve at every level.
    """

    def __init__(self, signals, noises, mask: np.ndarray, voxel_size: float):
        """Prepare the sums of two signals and two noises, `(z, y, x)` each; the signals may be the same array."""
        self._length, self._nyquist = max(mask.shape) * voxel_size, 2 * voxel_size
        sums = _pair_sums(*signals, *noises, jnp.asarray(mask), box_shells(mask.shape))
        self._sums = np.asarray(sums, np.float64)

    def fsc(self, level: float) -> np.ndarray:
        """Return the curve, float64 `(shells,)`."""
        cross, power_1, power_2 = (c0 + level * c1 + level**2 * c2 for c0, c1, c2 in self._sums)
        product = np.sqrt(np.maximum(power_1, 0)) * np.sqrt(np.maximum(power_2, 0))
        return np.divide(cross, product, out=np.zeros_like(cross), where=product > 0)

    def resolution(self, level: float) -> float:
        """Return where the curve crosses 0.143, Å."""
        return resolution_at(self.fsc(level), THRESHOLD, self._length, self._nyquist).angstrom

    def solve(self, resolution: float) -> tuple[float, float]:
        """Return the level whose crossing is nearest to a resolution in Å, and that crossing.

        The crossing grows coarser with the level, except for jumps: a curve that scatters dips below the threshold at
        an earlier shell. If that happens at the level itself, or so near that rounding decides, the worse crossing is
        returned.
        """
        middle = math.log(self._first_guess(resolution))
        low, high = middle - math.log(_RANGE), middle + math.log(_RANGE)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.resolution(math.exp(middle)) < resolution else (low, middle)
        level = math.exp(middle)
        around = [self.resolution(level * factor) for factor in (0.998, 1.0, 1.002)]
        return level, max(around, key=lambda crossing: abs(crossing - resolution))

    def _first_guess(self, resolution):
        """Return the level by the mean curve, `signal / (signal + level² noise)`, near the shell of the resolution."""
        (signal, _, _), (_, _, noise_1), (_, _, noise_2) = self._sums
        shell = round(self._length / resolution)
        near = slice(max(shell - 1, 1), shell + 2)
        noise = (noise_1[near] + noise_2[near]).sum() / 2
        wanted = abs(signal[near].sum()) * (1 / THRESHOLD - 1)
        return math.sqrt(wanted / noise) if noise > 0 and wanted > 0 else 1.0


def is_near(crossing: float, resolution: float) -> bool:
    """Return whether a crossing is at the requested resolution, within `TOLERANCE`."""
    return abs(crossing / resolution - 1) <= TOLERANCE


@jax.jit
def _pair_sums(signal_1, signal_2, noise_1, noise_2, mask, shells: Shells):
    """Return the coefficients of 1, level and level² in the shell sums of cross term and powers: `(3, 3, shells)`."""
    s1, s2, n1, n2 = (half_spectrum(array * mask) for array in (signal_1, signal_2, noise_1, noise_2))

    def sums(a, b):
        return shell_sums(a.real * b.real + a.imag * b.imag, shells)

    cross = [sums(s1, s2), sums(s1, n2) + sums(n1, s2), sums(n1, n2)]
    power_1 = [sums(s1, s1), 2 * sums(s1, n1), sums(n1, n1)]
    power_2 = [sums(s2, s2), 2 * sums(s2, n2), sums(n2, n2)]
    return jnp.stack([jnp.stack(cross), jnp.stack(power_1), jnp.stack(power_2)])
