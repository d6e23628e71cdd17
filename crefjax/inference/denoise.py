"""Denoise half-maps: standardize them, run the network, and put the result on the scale of the signal."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from crefjax.data.grid import level_and_rms
from crefjax.errors import UserError
from crefjax.inference.memory_plan import InferencePlan, plan_denoise
from crefjax.inference.network import part_of, run_rotated
from crefjax.inference.request import DenoiseRequest, read_request
from crefjax.io.maps import Map, full_map
from crefjax.masking import MeasurementMask
from crefjax.masking.threshold import INVERTED_CONTRAST, has_inverted_contrast
from crefjax.spectral.b_factors import sharpen
from crefjax.spectral.calibration import Calibration, apply_calibration, calibrate
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import FscCurve, solvent_level
from crefjax.spectral.symmetry import SymmetryMatch, group_center, input_match, shared_signal, symmetrize
from crefjax.utils.statistics import mean_and_std
from crefjax.weights.store import Weights


@dataclass(frozen=True)
class Denoised:
    """The result of a run.

    Attributes:
        full: the denoised full map.
        half_map_1: the denoised half-map 1, or None if it was not requested.
        half_map_2: the denoised half-map 2, or None.
        region: `(z, y, x)`, 0 to 1, mask within which the scale was measured; None for the whole box, or if nothing was
            measured.
        calibration: factors per shell of network and full map; None unless the scale is the signal's.
        half_map_fsc: FSC of the half-maps within `region`, by the check of the pair, else as far as the working grid
            reaches; None unless the scale is the signal's.
        sharpened: the denoised full map, weighted by C_ref, sharpened, and low-passed, or None if it was not requested.
        symmetry: how symmetric the input and the network's output are; None if no average was taken.
        notes: one line for each thing that the user should know.
    """

    full: Map
    half_map_1: Map | None = None
    half_map_2: Map | None = None
    region: np.ndarray | None = None
    calibration: Calibration | None = None
    half_map_fsc: FscCurve | None = None
    sharpened: Map | None = None
    symmetry: SymmetryMatch | None = None
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
    symmetry: str | None = None,
    insist: bool = False,
    device: str | None = None,
    max_memory: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Map:
    """Denoise the full map of two half-maps.

    Args:
        half_map_1: a map or the path of one; the result has its header.
        half_map_2: the same; None if `half_map_1` is a full map already.
        mask: values 0 to 1 on the same grid, `auto` for a mask made from the half-maps, or None. With a mask the
            solvent level is subtracted, so that the result is 0 in the solvent and outside.
        weights: loaded, or a name or path to load; None for the default of the package.
        scale: `signal`, in every frequency shell the scale of the signal that the half-maps share, see
            `crefjax.spectral.calibration` (both half-maps are denoised too, in three runs of the network); `input`,
            with mean and standard deviation of the full map (with a mask, of the masked one within it); `none`, the
            network's own output. By default `signal` for two half-maps and `input` for one map.
        grid: `data`, the working grid, on which the resolution spans 3.3 voxels, see `crefjax.data.grid`; `input`, the
            map's own. By default the one that the weights were trained for. The result is on the map's own grid in
            either case.
        resolution: Å, from which the working grid is chosen; None to measure it.
        rotations: number of rotations of the cube over which the output is averaged, 1, 4 or 24; None for as many as
            take no longer on the working grid than one does on the map's own.
        symmetry: point group over which the output is averaged, such as `D7`, with RELION's names and axes, see
            `crefjax.spectral.symmetry`; None for none.
        insist: whether half-maps that are not a pair are accepted, see `crefjax.data.pair_check`, and maps that do not
            have the symmetry.
        device: `cpu`, `gpu`, or None for the best.
        max_memory: GiB to keep within; None for 80 % of what is free.
        progress: called with the share of the work that is done, 0 to 1.

    Returns:
        The denoised map on the grid of the half-maps; nothing is written.

    Raises:
        UserError: maps, mask, weights, settings, device, or memory cannot be used; one line says why.
    """
    settings = {"scale": scale, "grid": grid, "resolution": resolution, "rotations": rotations}
    settings["symmetry"] = symmetry
    limits = {"device": device, "max_memory": max_memory}
    request = read_request(half_map_1, half_map_2, mask, weights, insist=insist, **settings, **limits)
    return denoise_maps(request, progress=progress).full


def denoise_maps(
    request: DenoiseRequest, plan: InferencePlan | None = None, *, progress: Callable[[float], None] | None = None
) -> Denoised:
    """Denoise the maps of a request. Full map and half-maps are standardized by the same two numbers.

    Args:
        request: maps, weights, and settings.
        plan: from `plan_denoise`, if already made.
        progress: called with the share of the work that is done, 0 to 1.

    Raises:
        UserError: a map is constant, all or within the mask; the network's output is; or memory is exhausted.
    """
    plan = plan or plan_denoise(request)
    pair, grid = request.pair, plan.grid
    full = pair[0].array if len(pair) == 1 else full_map(pair[0].array, pair[1].array)
    arrays = [full, *(half_map.array for half_map in pair)] if request.denoises_half_maps else [full]
    mask = None if request.mask is None else request.mask.array
    sharpening = request.sharpening
    within = request.region if request.is_measured else MeasurementMask(None)
    region, notes = within.array, within.notes + grid.notes
    if not within.inverted and has_inverted_contrast(full, pair[0].voxel_size):
        notes = (f"warning: {INVERTED_CONTRAST}", *notes)
    working_region, working_mask = (
        array if array is None or grid.shape == full.shape else grid.resample_mask(array) for array in (region, mask)
    )
    match = None if request.group is None else _input_match(request, grid, working_region)
    outputs = _network_outputs(arrays, request, plan, working_region, working_mask, progress)
    if match is not None:
        match = replace(match, output=_shared(outputs[:1], request, grid, working_region)[0])
        notes += (match.describe(), *([] if match.warning is None else [f"warning: {match.warning}"]))
    calibration, half_map_fsc = None, None
    if request.scale == "signal":
        outputs, calibration, half_map_fsc = _on_signal_scale(outputs, arrays, request, grid, working_region)
    else:
        outputs = [_symmetrized(output, request, grid, working_region) for output in outputs]
        outputs = [grid.restore(output, full.shape) for output in outputs]
        if request.scale == "input":
            own = mean_and_std(full)
            outputs = [_on_input_scale(y, array, own, mask) for y, array in zip(outputs, arrays, strict=True)]
    if mask is not None:
        # On the signal's scale half-maps are returned only on request.
        outputs = [_masked(y, array, mask, request.scale) for y, array in zip(outputs, arrays, strict=False)]
    maps = [pair[0].replace_array(output) for output in outputs]
    about = {"region": region, "calibration": calibration, "half_map_fsc": half_map_fsc, "symmetry": match}
    if sharpening is not None:
        about["sharpened"] = pair[0].replace_array(sharpen(maps[0].array, sharpening))
        notes += (f"sharpened copy: {sharpening.describe()}",)
    return Denoised(*maps, **about, notes=notes)


def _network_outputs(arrays, request, plan, region, mask, progress):
    """Return the network's outputs on the working grid, all maps being standardized by the numbers of the full map.

    If only a part of the half-maps is planned, the solvent level within it stands for the output around it.
    """
    weights, outputs, own = request.weights, [], None
    for number, array in enumerate(arrays):
        array = plan.grid.resample(array)
        if own is None:
            own = level_and_rms(array, region) if weights.grid else mean_and_std(array)
            if not own[1] > 0:
                raise UserError(
                    "expected a density map, found the same value in every voxel of the full map; check the half-maps"
                )
        x = _standardized(array, own, mask)
        part = part_of(progress, number, len(arrays))
        if plan.part is None or number == 0:
            output = _run(x, weights, plan, part)
        else:
            inner = _run(np.ascontiguousarray(x[plan.part]), weights, plan, part)
            output = np.full(x.shape, solvent_level(inner, region[plan.part]), np.float32)
            output[plan.part] = inner
        if request.scale != "none" and not mean_and_std(output, mask)[1] > 0:
            raise UserError(f"weights {weights.name}: the network produced a constant map; these weights are unusable")
        outputs.append(output)
    return outputs


def _run(x, weights, plan, progress):
    """Run the network, with thinner slabs if the device has less memory than it reported."""
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
                    "`device` cpu, or crop or bin the half-maps"
                ) from error
            slab = max(n for n in range(2, slab, 2) if plan.slab % n == 0)


def _standardized(array, own, mask):
    x = (array - np.float32(own[0])) / np.float32(own[1])
    if mask is None:
        return x
    x *= mask
    if not mean_and_std(x, mask)[1] > 0:
        raise UserError("expected density within the mask, found the same value in every voxel of it; check the mask")
    return x


def _on_input_scale(y, array, own, mask):
    """Give an output mean and deviation of its standardized map; within the mask, as the input was 0 outside."""
    mean, std = own
    inside = mean_and_std(_standardized(array, own, mask), mask)
    y_mean, y_std = mean_and_std(y, mask)
    gain = std * inside[1] / y_std
    offset = mean + std * inside[0] - gain * y_mean
    return y * np.float32(gain) + np.float32(offset)


def _on_signal_scale(outputs, arrays, request, grid, region):
    """Return full map and, if requested, half-maps on the map's own grid, the factors of their shells, and the FSC."""
    shape = arrays[0].shape
    unblurred = replace(grid, blur=0.0)
    if grid.shape != shape:
        arrays = [unblurred.resample(array) for array in arrays]
    outputs = [grid.undo_blur(output) for output in outputs]
    # All maps alike, so that half-maps and outputs still share the signal and no noise.
    arrays, outputs = ([_symmetrized(array, request, grid, region) for array in maps] for maps in (arrays, outputs))
    maps = [*arrays[1:], *outputs[1:], outputs[0]]
    covariances = shell_covariances(maps, region, levels=[solvent_level(array, region) for array in maps])
    if request.group is not None:
        covariances = covariances.with_copies(request.group.order)
    calibration = calibrate(covariances)
    results = []
    for array, output in list(zip(arrays, outputs, strict=True))[: 3 if request.half_maps else 1]:
        level = np.float32(solvent_level(array, region))
        output = output - np.float32(solvent_level(output, region))
        result = apply_calibration(output, array - level, calibration, corners=max(grid.shape) < max(shape))
        result += level
        results.append(unblurred.restore(result, shape))
    if request.check is not None:
        return results, calibration, request.check.curve
    return results, calibration, FscCurve(grid.shape, grid.voxel_size, covariances.fsc(0, 1))


def _input_match(request, grid, region):
    """Measure how symmetric the half-maps, or the one map, are; raise UserError if not at all."""
    return input_match(
        [grid.resample(map_.array) for map_ in request.pair],
        request.group,
        region,
        voxel_size=grid.voxel_size,
        center=_center(request, grid),
        resolution=grid.resolution,
        insist=request.insist,
    )


def _shared(maps, request, grid, region):
    about = {"voxel_size": grid.voxel_size, "center": _center(request, grid), "resolution": grid.resolution}
    return shared_signal(maps, request.group, region, **about)


def _symmetrized(array, request, grid, region):
    """Return a map on the working grid, averaged over the request's point group if there is one."""
    if request.group is None:
        return array
    return symmetrize(array, request.group, center=_center(request, grid), level=solvent_level(array, region))


def _center(request, grid):
    return group_center(grid.shape, request.pair[0].array.shape)


def _masked(y, array, mask, scale):
    """Return a map within the mask, less its input's solvent level: a plateau would show the mask's shape alone."""
    level = 0.0 if scale == "none" else solvent_level(array, mask)
    return (y - np.float32(level)) * mask
