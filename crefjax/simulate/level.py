"""How strong noise must be, so that the masked FSC of two half-maps crosses 0.143 where it is asked to."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from crefjax.spectral.curve import resolution_at
from crefjax.spectral.shells import Shells, box_shells, half_spectrum, shell_sums

THRESHOLD = 0.143
TOLERANCE = 0.015  # of the resolution; what is promised is 0.02
_RANGE = 100.0  # in which the level is looked for, above and below the first guess


class PairAtLevel:
    """The masked FSC of `signal_i + level * noise_i`, `i = 1, 2`, as a function of the level.

    Everything is bilinear in the maps, so that ten sums per shell, made once, give the curve at every level.
    """

    def __init__(self, signals, noises, mask: np.ndarray, voxel_size: float):
        """From two signals and two noises, `(z, y, x)` each; the signals may be one and the same array."""
        self._length, self._nyquist = max(mask.shape) * voxel_size, 2 * voxel_size
        sums = _pair_sums(*signals, *noises, jnp.asarray(mask), box_shells(mask.shape))
        self._sums = np.asarray(sums, np.float64)

    def fsc(self, level: float) -> np.ndarray:
        """The curve, float64 `(shells,)`."""
        cross, power_1, power_2 = (c0 + level * c1 + level**2 * c2 for c0, c1, c2 in self._sums)
        product = np.sqrt(np.maximum(power_1, 0)) * np.sqrt(np.maximum(power_2, 0))
        return np.divide(cross, product, out=np.zeros_like(cross), where=product > 0)

    def resolution(self, level: float) -> float:
        """Where the curve crosses 0.143, Å."""
        return resolution_at(self.fsc(level), THRESHOLD, self._length, self._nyquist).angstrom

    def solve(self, resolution: float) -> tuple[float, float]:
        """The level at which the crossing comes nearest to a resolution in Å, and the crossing found there.

        The crossing grows coarser with the level, but for jumps: a curve that scatters dips below the threshold at a
        shell before. Where that happens at the level itself, or so near that rounding may do it, the crossing given is
        the worse one.
        """
        middle = math.log(self._first_guess(resolution))
        low, high = middle - math.log(_RANGE), middle + math.log(_RANGE)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.resolution(math.exp(middle)) < resolution else (low, middle)
        level = math.exp(middle)
        around = [self.resolution(level * factor) for factor in (0.998, 1.0, 1.002)]
        return level, max(around, key=lambda found: abs(found - resolution))

    def _first_guess(self, resolution):
        """From the mean curve, `signal / (signal + level² noise)`, around the shell of the resolution."""
        (signal, _, _), (_, _, noise_1), (_, _, noise_2) = self._sums
        shell = round(self._length / resolution)
        near = slice(max(shell - 1, 1), shell + 2)
        noise = (noise_1[near] + noise_2[near]).sum() / 2
        wanted = abs(signal[near].sum()) * (1 / THRESHOLD - 1)
        return math.sqrt(wanted / noise) if noise > 0 and wanted > 0 else 1.0


def is_near(found: float, resolution: float) -> bool:
    """Whether a crossing is where it was asked for."""
    return abs(found / resolution - 1) <= TOLERANCE


@jax.jit
def _pair_sums(signal_1, signal_2, noise_1, noise_2, mask, shells: Shells):
    """Coefficients of 1, level and level² in the shell sums of the cross term and the two powers: `(3, 3, shells)`."""
    s1, s2, n1, n2 = (half_spectrum(one * mask) for one in (signal_1, signal_2, noise_1, noise_2))

    def sums(a, b):
        return shell_sums(a.real * b.real + a.imag * b.imag, shells)

    cross = [sums(s1, s2), sums(s1, n2) + sums(n1, s2), sums(n1, n2)]
    power_1 = [sums(s1, s1), 2 * sums(s1, n1), sums(n1, n1)]
    power_2 = [sums(s2, s2), 2 * sums(s2, n2), sums(n2, n2)]
    return jnp.stack([jnp.stack(cross), jnp.stack(power_1), jnp.stack(power_2)])
