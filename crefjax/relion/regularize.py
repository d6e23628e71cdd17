"""Regularize one half-map of a refinement with the denoiser, using only this half and RELION's spectra.

The network sees the half-map without prior, U = S + N. Per shell, within a mask made from this half:

- Noise N' with the share `(1 - FSC)` of the power of U is drawn, and the network runs on U and on `U + e N'`. The
  covariance of `(D' - D) / e` and `N'` estimates that of the output D and the noise N in it (Stein 1981; Ramani, Blu &
  Unser 2008, IEEE Trans. Image Process. 17, 1540). Subtracting it from cov(D, U) leaves cov(D, S): what the output has
  of the signal, without a second half-map.
- `g = cov(D, S) / var(D)` puts the output on the scale of the signal, and `rho² = cov(D, S)² / (var(D) var(S))` is the
  part of the signal's power that it explains.

Three ways to combine them:

- `trailing`: `g D`.
- `blend`: `a D + b U`, with the two factors of every shell that bring it nearest to the signal. They follow from the
  same covariances, which account for the noise of U in D.
- `prior`: `(W U + P g D) / (W + P)`, with RELION's weights W and the precision `P = 1 / (T tau² (1 - rho²))` of what is
  left of the prior. The classical step is the case g = rho = 0.

All end at the shell before that at which the FSC falls below 1/7, with a cosine edge of three shells, beyond
which the classical map is kept: there, particles would be aligned to detail that the network invented.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import scipy.fft

from crefjax.data.grid import VOXELS, find_grid, level_and_rms
from crefjax.errors import UserError
from crefjax.inference.network import run_rotated
from crefjax.masking import auto_mask
from crefjax.relion import COARSEST, COMBINATIONS
from crefjax.relion.external import ExternalJob, ResultPaths, read_job, read_volume, run_classical, write_volume
from crefjax.spectral.covariances import smooth_over_shells
from crefjax.spectral.curves import THRESHOLD, first_shell_below, shell_products, solvent_level
from crefjax.spectral.shells import box_shells, filter_shells
from crefjax.spectral.windows import raised_cosine
from crefjax.utils.atomic import temporary_sibling
from crefjax.utils.memory import free_memory
from crefjax.weights.store import Weights, load_weights

_TRAILING, _EDGE = 1 / 7, 3  # FSC, and shells of the cosine edge
_FIRST_SHELL = 5
_STEP = 0.5  # e, of the noise that is added
_WIDTH = 1.0  # shells (standard deviation) over which noisy estimates are averaged
_LARGEST_FSC = 0.999


class TooCoarseError(UserError):
    """The half-maps' resolution is too low for the network, as in the first iterations of a refinement."""


@dataclass(frozen=True)
class Regularized:
    """A regularized half-map.

    Attributes:
        array: `(z, y, x)`, on RELION's scale.
        gain: `(shells,)`, g.
        explained: `(shells,)`, rho².
        end: shell from which on the denoised map trails off, over three shells, into the classical one.
        resolution: Å, at which the half-maps' FSC falls below 0.143.
    """

    array: np.ndarray
    gain: np.ndarray
    explained: np.ndarray
    end: int
    resolution: float


def regularize(
    job: ExternalJob,
    classical: np.ndarray,
    unregularized: np.ndarray,
    weight: np.ndarray | None,
    weights: Weights,
    *,
    combine: str = COMBINATIONS[0],
    coarsest: float = COARSEST,
    seed: int = 0,
) -> Regularized:
    """Regularize a half-map.

    Args:
        job: the call; of it the spectra, voxel size, and diameter are used.
        classical: `(z, y, x)`, the result of the classical step.
        unregularized: the same without prior.
        weight: RELION's weights from `weights_on_grid`, for `prior`.
        weights: weights of the network.
        combine: one of `crefjax.relion.COMBINATIONS`.
        coarsest: Å, resolution from which on the classical map is kept.
        seed: random seed of the added noise.

    Raises:
        TooCoarseError: the resolution is too low.
        UserError: the map is empty, or there is not enough memory.
    """
    if combine not in COMBINATIONS:
        raise ValueError(f"expected one of {COMBINATIONS}, found {combine!r}")
    fsc = signal_share(job)
    resolution, end = find_limits(job, coarsest)
    region = region_of(classical, job)
    level = solvent_level(unregularized, region)
    half = unregularized - np.float32(level)
    noise = _noise_like(half, 1 - fsc, seed)
    products = shell_products([half], region)[:, 0, 0]
    products = products[:, np.newaxis, np.newaxis] * np.where(np.eye(2, dtype=bool)[np.newaxis], 1, fsc[:, None, None])
    grid_options = {"voxels": weights.grid or VOXELS, "resolution": resolution, "keep": not weights.grid}
    grid = find_grid([half, half], job.voxel_size, region, products=products, **grid_options)
    if not weights.corrects_falloff:
        grid = replace(grid, blur=0.0)
    denoised, disturbed = _outputs([half, half + np.float32(_STEP) * noise], grid, region, weights)
    response = (disturbed - denoised) / np.float32(_STEP)
    moments = _moments(half, denoised, noise, response, region)
    gain, explained = moments.shared / moments.output, moments.explained
    if combine == "blend":
        own, other = moments.blend()
        combined = filter_shells(denoised, own) + filter_shells(half, other)
    else:
        combined = filter_shells(denoised, gain)
        if combine == "prior":
            combined = _with_prior(job, half, combined, explained, weight)
    share = _trailing(len(gain), end)
    array = filter_shells(combined, share) + filter_shells(classical, 1 - share)
    return Regularized(array, gain, explained, end, resolution)


def find_limits(job: ExternalJob, coarsest: float = COARSEST) -> tuple[float, int]:
    """Return where the FSC of the half-maps falls below 0.143, Å, and the shell at which the denoised map trails off.

    Raises:
        TooCoarseError: the resolution is too low to denoise.
    """
    resolution = _resolution(job.fsc, job.box, job.voxel_size)
    end = first_shell_below(job.fsc, _TRAILING) or len(job.fsc)
    if resolution is None or resolution > coarsest or end < _FIRST_SHELL:
        found = "unknown" if resolution is None else f"{resolution:.3g} Å"
        raise TooCoarseError(f"the resolution is {found}; half-maps are denoised from {coarsest:g} Å on")
    return resolution, min(end, job.current // 2)


def signal_share(job: ExternalJob) -> np.ndarray:
    """Return the signal's share of the map's power, per shell: the FSC, or `2 F / (1 + F)` for all particles."""
    fsc = np.clip(job.fsc, 0, _LARGEST_FSC)
    return fsc if job.half else 2 * fsc / (1 + fsc)


def region_of(array: np.ndarray, job: ExternalJob) -> np.ndarray | None:
    """Return a mask around the particle in a map, within RELION's sphere; None for the whole box."""
    mask = auto_mask(array, array, job.voxel_size).array
    if job.particle_diameter is None:
        return mask
    side = np.arange(job.box) - job.box // 2
    radius = np.sqrt(side[:, None, None] ** 2 + side[None, :, None] ** 2 + side[None, None] ** 2)
    edge = raised_cosine((radius - job.particle_diameter / 2 / job.voxel_size) / 3).astype(np.float32)
    return edge if mask is None else mask * edge


def weights_on_grid(weight: np.ndarray, job: ExternalJob) -> np.ndarray:
    """Return RELION's weights at the frequencies of the map, `(N, N, N / 2 + 1)`.

    Args:
        weight: on the padded grid; see `ExternalJob`.
        job: the call.
    """
    pad, box = int(job.padding), job.box
    if pad != job.padding:
        raise UserError(f"expected an integer padding factor, found {job.padding:g}; refine with --pad 1 or 2")
    index = (np.fft.fftfreq(box, 1 / box).astype(int) * pad) % (box * pad)
    return weight[np.ix_(index, index, np.arange(box // 2 + 1) * pad)]


def _resolution(fsc, box, voxel_size):
    """Return where the FSC falls below 0.143 in Å, between two shells; None if it does not rise above it."""
    shell = first_shell_below(fsc, THRESHOLD) or len(fsc)
    if shell < _FIRST_SHELL:
        return None
    if shell < len(fsc) and fsc[shell - 1] > fsc[shell]:
        between = shell - 1 + (fsc[shell - 1] - THRESHOLD) / (fsc[shell - 1] - fsc[shell])
    else:
        between = shell - 1
    return box * voxel_size / between


def _noise_like(half, share, seed):
    """Draw noise with the given share of the power of a map, shell by shell."""
    shells = box_shells(half.shape)
    spectrum = scipy.fft.rfftn(half)
    keep = shells.index < shells.count
    count = np.bincount(shells.index[keep], np.broadcast_to(shells.weight, shells.index.shape)[keep])
    power = np.bincount(shells.index[keep], (np.abs(spectrum) ** 2 * shells.weight)[keep]) / np.maximum(count, 1)
    white = np.random.default_rng(seed).standard_normal(half.shape, np.float32)
    return filter_shells(white, np.sqrt(share * power / half.size))


def _outputs(maps, grid, region, weights):
    """Return the network's outputs for maps, all standardized by the numbers of the first, and back on its scale."""
    shape, outputs, own = maps[0].shape, [], None
    working = region if region is None or grid.shape == shape else grid.resample_mask(region)
    device = jax.devices()[0]
    for array in maps:
        x = grid.resample(array)
        own = own or level_and_rms(x, working)
        if not own[1] > 0:
            raise UserError("expected density in the half-map, found the same value in every voxel")
        x = (x - np.float32(own[0])) / np.float32(own[1])
        output = run_rotated(weights, x, 1, slab=_slab(grid.shape, weights, device), device=device)
        output = output - np.float32(solvent_level(output, working))
        outputs.append(grid.restore(output * np.float32(own[1]), shape))
    return outputs


def _slab(shape, weights, device):
    """Return the planes of the thickest slab that fits into the free memory; 0 for the whole box at once."""
    on_cpu, free = device.platform == "cpu", 0.5 * free_memory(device)
    slabs = weights.model.load_slabs(weights.config, on_cpu=on_cpu)
    if slabs is None:
        return 0
    sizes = slabs.sizes(shape, weights.config, on_cpu=on_cpu)
    fitting = [n for n in sizes if slabs.count_bytes(shape, weights.config, n, on_cpu=on_cpu) < free]
    if not fitting:
        raise UserError(f"expected more free memory to denoise a box of {shape[0]} voxels a side")
    return max(fitting)


@dataclass(frozen=True)
class _Moments:
    """Moments per shell within the mask, averaged over neighboring shells, `(shells,)`.

    Attributes:
        map: var(U).
        signal: var(S).
        output: var(D), above 0.
        cross: cov(D, U).
        shared: cov(D, S), not negative.
    """

    map: np.ndarray
    signal: np.ndarray
    output: np.ndarray
    cross: np.ndarray
    shared: np.ndarray

    @property
    def explained(self):
        """Return rho²."""
        return np.clip(self.shared**2 / np.maximum(self.output * self.signal, 1e-30 * self.output.max() ** 2), 0, 1)

    def blend(self):
        """Return the factors of D and U, not negative, whose sum has the least distance from S."""
        determinant = np.maximum(self.output * self.map - self.cross**2, 1e-3 * self.output * self.map)
        of_map = (self.output * self.signal - self.cross * self.shared) / determinant
        of_map = np.clip(of_map, 0, self.signal / self.map)
        of_output = np.maximum((self.shared - of_map * self.cross) / self.output, 0)
        return of_output, of_map


def _moments(half, denoised, noise, response, region):
    # In NumPy: the program is started twice in every iteration, and must compile as little as possible.
    m = shell_products([half, denoised, noise, response], region)
    voxels = 4 * np.pi * np.maximum(np.arange(len(m)), 0.5) ** 2
    places = {"map": (0, 0), "noise": (2, 2), "output": (1, 1), "cross": (0, 1), "through": (3, 2)}
    mean = {name: smooth_over_shells(m[:, i, j], voxels, _WIDTH)[0] for name, (i, j) in places.items()}
    power, output = (np.maximum(mean[name], 1e-12 * mean[name].max()) for name in ("map", "output"))
    signal = np.maximum(power - mean["noise"], 0)
    shared = np.clip(mean["cross"] - mean["through"], 0, np.sqrt(output * signal))
    return _Moments(power, signal, output, mean["cross"], shared)


def _with_prior(job, half, output, explained, weight):
    """Return `(W U + P D) / (W + P)` at every frequency."""
    if weight is None:
        raise ValueError("expected RELION's weights to combine with a prior")
    shells = box_shells(half.shape)
    left = job.fudge * job.tau2 * np.maximum(1 - explained, 0.01)
    precision = np.append(1 / np.maximum(left, 1e-12 * max(left.max(), 1e-30)), 1.0)[shells.index]
    share = weight / (weight + precision)
    spectra = scipy.fft.rfftn(half), scipy.fft.rfftn(output)
    return scipy.fft.irfftn(share * spectra[0] + (1 - share) * spectra[1], s=half.shape).astype(np.float32)


def _trailing(count, end):
    """Return the share of the denoised map per shell: 1 up to before the shell `end`, then a cosine edge to 0."""
    return raised_cosine((np.arange(count) - (end - 1)) / _EDGE).astype(np.float64)


def regularize_result(star: Path, *, combine: str, weights: str | None, coarsest: float, program: str) -> str:
    """Regularize the result of a classical step, and replace it if it is of a half-map.

    The map of all particles stays RELION's own; the denoised one is written beside it as `*_denoised.mrc`.

    Args:
        star: the file that describes the reconstruction.
        combine: one of `crefjax.relion.COMBINATIONS`.
        weights: name or folder of the weights; None for the default of the package.
        coarsest: Å, resolution from which on the classical map is kept.
        program: RELION's, for the map without prior.

    Returns:
        one line on what was done.

    Raises:
        UserError: something cannot be read, or the map cannot be denoised; the result is as it was.
    """
    job = read_job(star)
    try:
        find_limits(job, coarsest)  # before any work
    except TooCoarseError as reason:
        return f"classical: {reason}"
    regularized = _regularized(job, combine, weights, coarsest, program)
    output = job.result if job.half else job.beside("_denoised.mrc")
    write_volume(output, regularized.array, job.voxel_size)
    explained = regularized.explained[1 : max(regularized.end, 2)].mean()
    return (
        f"{combine}: {output.name}, FSC-0.143 at {regularized.resolution:.2f} Å, trailing off from shell "
        f"{regularized.end} on, {explained:.2f} of the signal's power explained before"
    )


def _regularized(job: ExternalJob, combine, weights, coarsest, program) -> Regularized:
    shape = (job.box,) * 3
    classical = read_volume(job.result, shape)
    if not classical.any():
        raise UserError(f"{job.result}: expected a map, found 0 in every voxel")
    weight = None
    if combine == "prior":
        side = int(job.box * job.padding)
        weight = weights_on_grid(read_volume(job.weight, (side, side, side // 2 + 1)), job)
    with temporary_sibling(job.result) as hidden:
        unfiltered = hidden.with_suffix(".mrc")
        try:
            run_classical(ResultPaths(job.star, job.result), program=program, output=unfiltered, without_prior=True)
            unregularized = read_volume(unfiltered, shape)
        finally:
            unfiltered.unlink(missing_ok=True)
    loaded = load_weights(weights)
    return regularize(job, classical, unregularized, weight, loaded, combine=combine, coarsest=coarsest)
