"""The Fourier shell correlation and C_ref, in JAX; `crefjax.spectral.curves` has a NumPy version.

`corrected_fsc` corrects the FSC under a mask, by phase randomization, for the correlation that the mask itself
introduces, following the steps of RELION's post-processing. Masked maps correlate through the shape of their common
mask, the more so the tighter it is. If the phases of both maps are randomized beyond a resolution, what their masked
FSC shows there comes from the mask alone, and the correlation of the maps themselves follows (Chen et al. 2013,
Ultramicroscopy 135, 24):

    FSC_corrected = (FSC_masked - FSC_randomized) / (1 - FSC_randomized)

It holds for half-maps with independent noise. Denoised half-maps are not independent, so a curve from them does not
give a resolution, corrected or not.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from crefjax.errors import UserError
from crefjax.spectral.curves import THRESHOLD, FscCurve, first_shell_below, solvent_level
from crefjax.spectral.shells import Shells, box_shells, half_spectrum, shell_sums

RANDOMIZE_BELOW = 0.8  # of the unmasked FSC, as in RELION
_SPARED = 2  # shells at the edge of the randomization, where the mask mixes both sides; RELION does not correct them
_MASK_DOMINATES = 0.1  # of the randomized FSC at the resolution, above which RELION warns


def fsc(map_1: jax.Array, map_2: jax.Array, shells: Shells | None = None) -> jax.Array:
    """Return the Fourier shell correlation of two maps.

    `Re sum F1 conj(F2) / sqrt(sum |F1|² sum |F2|²)` in every shell: signed, a quotient of shell sums, 0 where the
    denominator is 0 (there its gradient is 0 too). The scale of either map does not matter. Rosenthal & Henderson
    2003; van Heel 1987.

    Args:
        map_1: `(..., z, y, x)`, masked if need be.
        map_2: the same shape.
        shells: of the box; made here if None. Inside `jax.jit` on a large box pass them as an argument, or they
            become a constant of the compiled program.

    Returns:
        `(..., N // 2 + 1)` with `N` the longest side, from shell 0 to Nyquist.

    Raises:
        ValueError: if the shapes differ.
    """
    if map_1.shape != map_2.shape:
        raise ValueError(f"expected maps of one shape, found {map_1.shape} and {map_2.shape}")
    shells = shells or box_shells(map_1.shape[-3:])
    return fsc_of_spectra(*(half_spectrum(unit_scale(array)[0]) for array in (map_1, map_2)), shells)


def fsc_of_spectra(spectrum_1: jax.Array, spectrum_2: jax.Array, shells: Shells) -> jax.Array:
    """Return the Fourier shell correlation of two half-spectra `(..., z, y, x // 2 + 1)`; see `fsc`."""
    cross = shell_sums(real_product(spectrum_1, spectrum_2), shells)
    power_1 = shell_sums(real_product(spectrum_1, spectrum_1), shells)
    power_2 = shell_sums(real_product(spectrum_2, spectrum_2), shells)
    return over_amplitudes(cross, power_1, power_2)


def over_amplitudes(sums: jax.Array, power_1: jax.Array, power_2: jax.Array) -> jax.Array:
    """Return sums over shells over the root of the product of two powers; 0 where one of them is 0."""
    # Roots before the product: the product of two powers can leave float32's range.
    usable = (power_1 > 0) & (power_2 > 0)
    amplitude = jnp.sqrt(jnp.where(usable, power_1, 1)) * jnp.sqrt(jnp.where(usable, power_2, 1))
    return jnp.where(usable, sums / amplitude, 0)


def c_ref(fsc_half: jax.Array) -> jax.Array:
    """Return the expected FSC of the full map to the noise-free map: `sqrt(2 h / (1 + h))`, `h = max(FSC, 0)`.

    Rosenthal & Henderson 2003. Its gradient is 0 where the FSC is not positive.

    Args:
        fsc_half: FSC of the two half-maps, any shape.
    """
    positive = fsc_half > 0
    h = jnp.where(positive, fsc_half, 1)
    return jnp.where(positive, jnp.sqrt(2 * h / (1 + h)), 0)


def unit_scale(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scale maps to a mean square of about 1, so that their powers stay in float32's range.

    Args:
        maps: `(..., z, y, x)`.

    Returns:
        the maps divided by their scale, and the scale `(..., 1, 1, 1)`, about the root of their mean square; 1 for a
        map of zeros. Gradients treat the scale as a constant.
    """
    axes = (-3, -2, -1)
    largest = jnp.max(jnp.abs(maps), axis=axes, keepdims=True)
    largest = jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1))
    scaled = maps / largest
    rms = jnp.sqrt(jnp.mean(jnp.square(scaled), axis=axes, keepdims=True))
    rms = jax.lax.stop_gradient(jnp.where(rms > 0, rms, 1))
    return scaled / rms, largest * rms


def real_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return `Re a conj(b)` of two half-spectra of one shape, voxel by voxel."""
    return a.real * b.real + a.imag * b.imag


def fsc_curve(
    map_1: np.ndarray, map_2: np.ndarray, voxel_size: float, mask: np.ndarray | None = None, *, leveled: bool = False
) -> FscCurve:
    """Return the FSC of two maps in host memory, under a mask, computed in float64.

    In float32 a Fourier transform rounds to about 1e-7 of the largest amplitudes; a map with a steep spectrum (a
    denoised or unsharpened map) has shells below that. Float64 costs twice the memory and has no such shells.

    A constant level common to both maps correlates in the shape of the mask, and a constant level of one map hides
    their correlation. Maps whose level is not 0 must therefore be leveled.

    Args:
        map_1: `(z, y, x)`, float32.
        map_2: the same shape.
        voxel_size: Å.
        mask: the same shape, 0 to 1, by which both are multiplied; None for none.
        leveled: whether each map's solvent level, the mean outside the mask, is subtracted before it is masked.
    """
    box = tuple(map_1.shape)
    with jax.enable_x64(True):
        spectra = [
            _masked_spectrum(array, mask, solvent_level(array, mask) if leveled and mask is not None else 0.0)
            for array in (map_1, map_2)
        ]
        curve = np.asarray(_fsc_of_spectra(*spectra, box_shells(box)))
    return FscCurve(box, voxel_size, curve)


@jax.jit
def _masked_spectrum(array, mask, level):
    array = array.astype(jnp.float64) - level
    return half_spectrum(unit_scale(array if mask is None else array * mask)[0])


_fsc_of_spectra = jax.jit(fsc_of_spectra)


@dataclass(frozen=True)
class CorrectedFsc:
    """The curves of two half-maps with and without a mask, all on the same shells.

    Attributes:
        unmasked: the curve of the whole box.
        masked: the curve within the mask, each map less its solvent level.
        randomized: the same, after the phases of both maps were randomized from `shell` on.
        corrected: `masked` without the correlation that comes from the mask, from two shells past `shell` on; 1 in
            shell 0.
        shell: the first shell whose phases were randomized.
        seed: of the random phases.
    """

    unmasked: FscCurve
    masked: FscCurve
    randomized: FscCurve
    corrected: FscCurve
    shell: int
    seed: int

    @property
    def randomized_from(self) -> float:
        """Resolution in Å from which the phases were randomized."""
        return float(1 / self.masked.frequency[self.shell])

    def doubts(self) -> tuple[str, ...]:
        """Return one line for each sign that the mask does not suit the maps."""
        corrected, unmasked = (curve.resolution(THRESHOLD) for curve in (self.corrected, self.unmasked))
        if unmasked.angstrom < corrected.angstrom:
            return (
                f"the unmasked FSC falls below 0.143 at {unmasked.angstrom:.2f} Å, the corrected one already at "
                f"{corrected.angstrom:.2f} Å: the mask is too tight, or leaves out part of the particle",
            )
        last = self.corrected.last_shell()
        if (share := float(self.randomized.fsc[last])) > _MASK_DOMINATES and last >= self.shell:
            return (
                f"the FSC of the maps with random phases is {share:.2f} at the resolution, where it should be near 0: "
                "use a softer or wider mask",
            )
        return ()


def corrected_fsc(
    map_1: np.ndarray, map_2: np.ndarray, voxel_size: float, mask: np.ndarray, *, seed: int = 0
) -> CorrectedFsc:
    """Return the FSC of two half-maps within a mask, corrected by phase randomization.

    Args:
        map_1: `(z, y, x)`, float32.
        map_2: the same shape; its noise is independent of that of the first.
        voxel_size: Å.
        mask: the same shape, 0 to 1.
        seed: seed of the random phases, which differ between the two maps.

    Raises:
        UserError: the unmasked FSC never falls below 0.8, so that there is no shell to begin with.
    """
    unmasked = fsc_curve(map_1, map_2, voxel_size)
    shell = first_shell_below(unmasked.fsc, RANDOMIZE_BELOW)
    if shell is None:
        raise UserError(
            f"expected half-maps whose unmasked FSC falls below {RANDOMIZE_BELOW}, found at least "
            f"{unmasked.fsc[1:].min():.3f} up to Nyquist; without such a shell the FSC within a mask cannot be "
            "corrected: give the unmasked, unfiltered half-maps, or leave out the mask"
        )
    masked = fsc_curve(map_1, map_2, voxel_size, mask, leveled=True)
    random = [randomize_phases(array, shell, (seed, number)) for number, array in enumerate((map_1, map_2))]
    randomized = fsc_curve(*random, voxel_size, mask, leveled=True)
    corrected = correct_fsc(masked.fsc, randomized.fsc, shell)
    return CorrectedFsc(unmasked, masked, randomized, FscCurve(masked.box, voxel_size, corrected), shell, seed)


def correct_fsc(masked: np.ndarray, randomized: np.ndarray, shell: int) -> np.ndarray:
    """Return the corrected curve; see the docstring of this module.

    Args:
        masked: `(shells,)`, from shell 0 on.
        randomized: the same shape.
        shell: the first shell whose phases were randomized; the curve is corrected from two shells beyond it on.

    Returns:
        `(shells,)`: 1 in shell 0, and 0 where the mask alone gives a correlation of 1.
    """
    corrected = np.array(masked, np.float64)
    corrected[0] = 1.0
    beyond = slice(shell + _SPARED, None)
    rest = 1 - randomized[beyond]
    corrected[beyond] = np.divide(masked[beyond] - randomized[beyond], rest, out=np.zeros_like(rest), where=rest > 0)
    return corrected


def randomize_phases(array: np.ndarray, shell: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """Return a map with the same amplitudes, and random phases from a shell on.

    The phases are those of white noise, `numpy.random.default_rng(seed).standard_normal(shape, float32)`: uniform, and
    with the symmetry of a real map's spectrum, so that every amplitude is kept.

    Args:
        array: `(z, y, x)`.
        shell: the first shell, 1 or more; voxels in the corners, beyond all shells, are randomized too.
        seed: seed of the noise.

    Returns:
        `(z, y, x)`, float64.
    """
    spectrum = scipy.fft.rfftn(array.astype(np.float64), workers=-1)
    noise = np.random.default_rng(seed).standard_normal(array.shape, np.float32)
    noise = scipy.fft.rfftn(noise, workers=-1)
    # Plane by plane, so that the temporaries stay small.
    for plane, noise_plane, index in zip(spectrum, noise, box_shells(array.shape).index, strict=True):
        beyond = index >= shell
        plane[beyond] = np.abs(plane[beyond]) * np.exp(1j * np.angle(noise_plane[beyond].astype(np.complex128)))
    return scipy.fft.irfftn(spectrum, s=array.shape, workers=-1, overwrite_x=True)
