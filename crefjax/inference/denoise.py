"""From half-maps to a denoised map: standardize, run the network, put the result on the signal's scale."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from crefjax.data.grid import WorkingGrid, moments_in
from crefjax.data.pair_check import usable
from crefjax.errors import UserError
from crefjax.inference.choices import choose_scale, plan_denoise
from crefjax.inference.memory_plan import InferencePlan
from crefjax.inference.slabs import run_rotated
from crefjax.io.entries import check_mask, load_mask, load_pair
from crefjax.io.maps import Map, check_same_grid, read_map
from crefjax.masking import auto_mask, inverted_contrast
from crefjax.spectral.calibration import Calibration, apply_calibration, calibrate
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import solvent_level
from crefjax.spectral.windows import apply_b_factor
from crefjax.weights.store import Weights, load_weights


@dataclass(frozen=True)
class Denoised:
    """What a run gives: the denoised full map and, where asked for, the denoised half-maps.

    Attributes:
        full: the denoised full map.
        half_map_1: the denoised half-map 1, or None.
        half_map_2: the denoised half-map 2, or None.
        region: `(z, y, x)`, 0 to 1, within which the scale was measured; None for the whole box, or not measured.
        calibration: factors per shell of network and full map; None unless the scale is the signal's.
        notes: one line for each thing that the user should know.
    """

    full: Map
    half_map_1: Map | None = None
    half_map_2: Map | None = None
    region: np.ndarray | None = None
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()


def denoise(
    half_map_1: Map | str | Path,
    half_map_2: Map | str | Path | None = None,
    mask: Map | str | Path | None = None,
    weights: Weights | str | Path | None = None,
    *,
    scale: str | None = None,
    grid: str | None = None,
    resolution: float | None = None,
    rotations: int | None = None,
    insist: bool = False,
    device: str | None = None,
    max_memory: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Map:
    """Denoise the full map of two half-maps.

    Args:
        half_map_1: a map or the path of one; its header goes to the result.
        half_map_2: the same; None if `half_map_1` is a full map already.
        mask: values 0 to 1 on the same grid; None for none.
        weights: loaded, or a name or path to load; the package's own if None.
        scale: `signal`, in every frequency shell the scale of the signal that the half-maps have in common, see
            `crefjax.spectral.calibration` (both half-maps are denoised too, so it takes three runs of the network);
            `input`, with the mean and the deviation of the full map (with a mask, of the masked one within it); `none`,
            as the network gives it. None is `signal` for two half-maps and `input` for one map. With a mask the
            solvent level is taken away, so that the map is 0 in the solvent and outside.
        grid: `data`, the network works where the resolution takes about three voxels, see `crefjax.data.grid`; `input`,
            on the grid of the map. None is what the weights were trained for.
        resolution: Å, by which the data's grid is chosen; None to have it measured.
        rotations: over how many rotations of the cube the network's output is averaged, 1, 4 or 24; None for as many as
            the working grid has made time for.
        insist: whether to go on where the half-maps are found to be no pair, see `crefjax.data.pair_check`.
        device: `cpu`, `gpu`, or None for whatever is best.
        max_memory: GiB to keep within; None for what is free.
        progress: called with the share of the work that is done, 0 to 1.

    Returns:
        The denoised map on the grid of the half-maps; nothing is written.

    Raises:
        UserError: whatever is wrong with maps, mask, weights, device or memory, in one line.
    """
    if half_map_2 is None:
        pair = (_as_map(half_map_1),)
    elif isinstance(half_map_1, Map) or isinstance(half_map_2, Map):
        pair = (_as_map(half_map_1), _as_map(half_map_2))
        check_same_grid(*pair, "half-maps")
    else:
        pair = load_pair(half_map_1, half_map_2)
    if isinstance(mask, Map):
        check_mask(mask, pair[0])
    elif mask is not None:
        mask = load_mask(mask, pair[0])
    if not isinstance(weights, Weights):
        weights = load_weights(weights)
    used = usable(pair, None if mask is None else mask.array, insist=insist)
    pair, region = used.pair, None
    if used.check is not None and mask is None:
        region = (used.check.mask, used.check.mask_notes)
    choices = {"mask": mask, "scale": scale, "grid": grid, "resolution": resolution, "rotations": rotations}
    plan = plan_denoise(pair, weights, region=region, **choices, device=device, max_memory=max_memory)
    return denoise_maps(pair, weights, plan, mask=mask, scale=scale, progress=progress).full


def denoise_maps(
    pair: tuple[Map, ...],
    weights: Weights,
    plan: InferencePlan,
    *,
    mask: Map | None = None,
    scale: str | None = None,
    halves: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Denoised:
    """Denoise checked half-maps, or one full map, as planned.

    Full map and half-maps are standardized by the same two numbers, those of the full map.

    Args:
        pair: two half-maps on one grid, or one full map.
        weights: of the network.
        plan: from `plan_denoise`.
        mask: on the same grid, 0 to 1.
        scale: one of `SCALES`, or None; see `denoise`.
        halves: whether the denoised half-maps are given back. An FSC between them is no resolution: both went through
            the same network, so their errors are not independent.
        progress: called with the share of the work that is done, 0 to 1.

    Raises:
        UserError: the scale is unknown, halves are asked of one map, or nothing is left within the mask.
    """
    scale = choose_scale(scale, pair)
    if halves and len(pair) != 2:
        raise UserError("--halves: expected two half-maps, found one map; give both half-maps")
    full = pair[0].array if len(pair) == 1 else _mean(*(one.array for one in pair))
    arrays = [full, *(one.array for one in pair)] if halves or scale == "signal" else [full]
    inside = None if mask is None else mask.array
    grid = plan.grid or WorkingGrid(full.shape, pair[0].voxel_size)
    region, notes = plan.region or (None, ())
    if plan.region is None and scale == "signal":
        region, notes = (
            (inside, ()) if mask is not None else auto_mask(pair[0].array, pair[1].array, pair[0].voxel_size)
        )
    contrast = inverted_contrast(full, pair[0].voxel_size)
    if any("inverted contrast" in note for note in notes):
        contrast = ()
    work = _Work(arrays, region, inside, weights, plan, grid)
    work.run(progress, scale, plan.part if scale == "signal" and not halves else None)
    calibration = None
    if scale == "signal":
        outputs, calibration = work.on_signal_scale(halves)
    else:
        outputs = [grid.restore(y, full.shape) for y in work.outputs]
        if scale == "input":
            moments = _moments(full)
            outputs = [_on_input_scale(y, one, moments, inside) for y, one in zip(outputs, arrays, strict=True)]
    if mask is not None:
        # On the signal's scale half-maps come back only where they are wanted.
        outputs = [_masked(y, one, inside, scale) for y, one in zip(outputs, arrays, strict=False)]
    maps = (pair[0].replace_array(y) for y in outputs)
    shown = region if plan.region is not None or scale == "signal" else None
    return Denoised(*maps, region=shown, calibration=calibration, notes=contrast + notes + grid.notes)


class _Work:
    """The maps on the working grid, and what the network makes of them.

    Attributes:
        arrays: full map and, where they are wanted, half-maps, on the file's grid.
        outputs: of the network, on the working grid.
    """

    def __init__(self, arrays, region, inside, weights, plan, grid):
        self.arrays, self.grid, self.weights, self.plan = arrays, grid, weights, plan
        self.same = grid.shape == arrays[0].shape
        self.region, self.inside = (self._mask(one) for one in (region, inside))
        self.outputs = []

    def _mask(self, mask):
        return mask if mask is None or self.same else self.grid.bring_mask(mask)

    def run(self, progress, scale, part):
        """Standardize all by the numbers of the full map, and run the network; over half-maps only in a part, if any.

        There, beyond that part, the mean of the solvent within it stands for the output.
        """
        moments = None
        for number, array in enumerate(self.arrays):
            array = self.grid.bring(array)
            if moments is None:
                moments = moments_in(array, self.region) if self.weights.grid else _moments(array)
                if not moments[1] > 0:
                    raise UserError(
                        "expected a density map, found the same value in every voxel of the full map; check the "
                        "half-maps"
                    )
            x = _standardized(array, moments, self.inside)
            share = _share(progress, number, len(self.arrays))
            if part is None or number == 0:
                self.outputs.append(_run(x, self.weights, self.plan, share))
            else:
                inner = _run(np.ascontiguousarray(x[part]), self.weights, self.plan, share)
                y = np.full(x.shape, solvent_level(inner, self.region[part]), np.float32)
                y[part] = inner
                self.outputs.append(y)
            if not _moments(self.outputs[-1], self.inside)[1] > 0 and scale != "none":
                raise UserError(
                    f"weights {self.weights.name}: the network produced a constant map; these weights are unusable"
                )

    def on_signal_scale(self, halves):
        """Full map and, if wanted, half-maps with the factors of their shells, on the file's grid; the factors."""
        shape = self.arrays[0].shape
        unblurred = replace(self.grid, blur=0.0)
        arrays = self.arrays if self.same else [unblurred.bring(one) for one in self.arrays]
        outputs = [apply_b_factor(one, self.grid.voxel_size, -self.grid.blur) for one in self.outputs]
        coarser = max(self.grid.shape) < max(shape)
        results, calibration = _on_signal_scale(outputs, arrays, self.region, halves, corners=coarser)
        results = [unblurred.restore(one, shape) for one in results]
        return results, calibration


def _standardized(array, moments, mask):
    x = (array - np.float32(moments[0])) / np.float32(moments[1])
    if mask is None:
        return x
    x *= mask
    if not _moments(x, mask)[1] > 0:
        raise UserError("expected density within the mask, found the same value in every voxel of it; check the mask")
    return x


def _on_input_scale(y, array, moments, mask):
    """Mean and deviation as the standardized map has them; within the mask, for outside the network's input was 0."""
    mean, deviation = moments
    inside = _moments(_standardized(array, moments, mask), mask)
    y_mean, y_deviation = _moments(y, mask)
    gain = deviation * inside[1] / y_deviation
    offset = mean + deviation * inside[0] - gain * y_mean
    return y * np.float32(gain) + np.float32(offset)


def _masked(y, array, mask, scale):
    """A denoised map within the mask, less the solvent level of its input: a plateau would hide all but the mask."""
    level = 0.0 if scale == "none" else solvent_level(array, mask)
    return (y - np.float32(level)) * mask


def _on_signal_scale(outputs, arrays, region, halves, *, corners=False):
    """The network's outputs for full map and half-maps with the factors of their shells; half-maps only if wanted."""
    order = (1, 2)
    maps = [*(arrays[i] for i in order), *(outputs[i] for i in order), outputs[0]]
    levels = [solvent_level(one, region) for one in maps]
    calibration = calibrate(shell_covariances(maps, region, levels=levels))
    results = []
    for array, output in list(zip(arrays, outputs, strict=True))[: 3 if halves else 1]:
        level = np.float32(solvent_level(array, region))
        output = output - np.float32(solvent_level(output, region))
        result = apply_calibration(output, array - level, calibration, corners=corners)
        result += level
        results.append(result)
    return results, calibration


def _run(x, weights, plan, progress):
    """The network, with thinner slabs if the device had less room than it said."""
    slab = plan.slab
    while True:
        try:
            return run_rotated(weights, x, plan.rotations, slab=slab, device=plan.device, progress=progress)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            if slab <= 2:
                raise UserError(
                    f"{plan.device.platform} ran out of memory with the thinnest slabs; close other programs, choose "
                    "--device cpu, or crop or bin the half-maps"
                ) from error
            slab = max(n for n in range(2, slab, 2) if plan.slab % n == 0)


def _moments(array, mask=None):
    """Mean and deviation, weighted by a mask if there is one; float64, plane by plane."""
    masks = [None] * len(array) if mask is None else mask
    weight = float(array.size) if mask is None else sum(float(plane.sum(dtype=np.float64)) for plane in mask)

    def total(planes):
        return sum(
            float((plane if one is None else plane * one).sum(dtype=np.float64))
            for plane, one in zip(planes, masks, strict=True)
        )

    mean = total(array) / weight
    return mean, float(np.sqrt(total(np.square(plane - mean, dtype=np.float64) for plane in array) / weight))


def _mean(first, second):
    out = first + second
    out *= np.float32(0.5)
    return out


def _as_map(one):
    return one if isinstance(one, Map) else read_map(one)


def _share(progress, number, count):
    return None if progress is None else lambda share: progress((number + share) / count)
