"""A request to denoise: maps, weights, and settings, checked once and completed with every default."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from crefjax.data.pair_check import PairCheck, validate_maps
from crefjax.errors import UserError
from crefjax.inference import GRIDS, ROTATION_COUNTS, SCALES
from crefjax.io.entries import check_mask, load_mask, load_pair
from crefjax.io.maps import Map, check_same_grid, read_map
from crefjax.masking import MeasurementMask, auto_mask
from crefjax.spectral.b_factors import Sharpening, plan_sharpening
from crefjax.spectral.curves import THRESHOLD, FscCurve, fsc_from_products, has_no_signal, shell_products, solvent_level
from crefjax.spectral.symmetry import PointGroup, check_cube, point_group, symmetrize
from crefjax.weights.store import Weights, load_weights


@dataclass(frozen=True, eq=False)
class DenoiseRequest:
    """Maps, weights, and settings of one run; what is None in `scale` and `grid` is filled in.

    Attributes:
        pair: two half-maps on one grid, or one full map.
        weights: weights of the network.
        mask: mask on the same grid, 0 to 1, or None.
        scale: one of `SCALES`; by default `signal` for two half-maps and `input` for one map.
        grid: one of `GRIDS`; by default the one that the weights were trained for.
        resolution: resolution in Å from which the working grid is chosen; None to measure it.
        rotations: one of `ROTATION_COUNTS`; None for as many as take no longer than one does on the map's own grid.
        symmetry: point group over which the output is averaged, in RELION's notation; see
            `crefjax.spectral.symmetry`. None for none.
        sharpen: B-factor in Å², below 0, or `auto` to find it, for a sharpened copy of the denoised full map; None for
            none.
        insist: whether maps that do not have that symmetry are averaged nevertheless.
        half_maps: whether the denoised half-maps are returned. An FSC between them is not a resolution: both went
            through the same network, so their errors are not independent.
        report: whether memory is planned for a report or local maps too.
        device: `cpu`, `gpu`, or None for the best.
        max_memory: memory limit in GiB; None for 80 % of what is free.
        check: result of checking the half-maps, or None.
        warnings: findings of the check that the result does not report by itself, one line each.
        mask_notes: one line for each thing to know about a mask made by `read_request`.

    Raises:
        UserError: a setting is out of range, or needs two half-maps and there is one map.
    """

    pair: tuple[Map, ...]
    weights: Weights
    mask: Map | None = None
    scale: str | None = None
    grid: str | None = None
    resolution: float | None = None
    rotations: int | None = None
    symmetry: str | None = None
    sharpen: float | str | None = None
    insist: bool = False
    half_maps: bool = False
    report: bool = False
    device: str | None = None
    max_memory: float | None = None
    check: PairCheck | None = None
    warnings: tuple[str, ...] = ()
    mask_notes: tuple[str, ...] = ()

    def __post_init__(self):
        two = len(self.pair) == 2
        choices = {name: getattr(self, name) for name in ("scale", "grid", "rotations", "half_maps", "sharpen")}
        _check_choices(two, **choices)
        _check_resolution(self.resolution, self.pair[0])
        if self.group is not None:
            check_cube(self.pair[0].array.shape)
        defaults = {"scale": "signal" if two else "input", "grid": "data" if self.weights.grid else "input"}
        for name, default in defaults.items():
            object.__setattr__(self, name, getattr(self, name) or default)

    @property
    def denoises_half_maps(self) -> bool:
        """Whether the network runs over both half-maps too: their outputs are wanted, or measured for the scale."""
        return self.half_maps or self.scale == "signal"

    @property
    def is_measured(self) -> bool:
        """Whether anything is measured within `region`: the scale of the signal, the resolution, or the fall-off."""
        return self.scale == "signal" or self.grid == "data" or self.weights.corrects_falloff

    @cached_property
    def group(self) -> PointGroup | None:
        """The point group; None if there is nothing to average over."""
        group = None if self.symmetry is None else point_group(self.symmetry)
        return group if group is not None and group.axes else None

    @cached_property
    def sharpening(self) -> Sharpening | None:
        """How the sharpened copy is made, from the half-maps; None if there is none.

        Raises:
            UserError: the B-factor is out of range, or cannot be found.
        """
        if self.sharpen is None:
            return None
        b_factor = None if self.sharpen == "auto" else float(self.sharpen)
        if self.check is not None:
            return plan_sharpening(self.check.products, self.check.curve, b_factor)
        arrays, region = [half_map.array for half_map in self.pair], self.region.array
        products = shell_products(arrays, region, levels=[solvent_level(array, region) for array in arrays])
        curve = FscCurve(arrays[0].shape, self.pair[0].voxel_size, fsc_from_products(products))
        return plan_sharpening(products, curve, b_factor)

    @cached_property
    def region(self) -> MeasurementMask:
        """The mask to measure within: the one given, else that of the check, else one made from the maps."""
        if self.mask is not None:
            return MeasurementMask(self.mask.array)
        if self.check is not None:
            return self.check.region
        return auto_mask(self.pair[0].array, self.pair[-1].array, self.pair[0].voxel_size)


def read_request(
    half_map_1: Map | str | Path,
    half_map_2: Map | str | Path | None = None,
    mask: Map | str | Path | None = None,
    weights: Weights | str | Path | None = None,
    *,
    voxel_size: float | None = None,
    insist: bool = False,
    **settings,
) -> DenoiseRequest:
    """Read and check what is to be denoised.

    Args:
        half_map_1: a map or the path of one.
        half_map_2: the same; None if `half_map_1` is a full map.
        mask: a map, the path of one, `auto` for one made from the half-maps, or None.
        weights: loaded, or a name or path to load; the default of the package if None.
        voxel_size: Å, in place of the headers'; None for theirs.
        insist: whether half-maps that are not a pair are accepted, see `crefjax.data.pair_check`, and maps that do not
            have the symmetry.
        **settings: further fields of `DenoiseRequest`.

    Raises:
        UserError: maps, mask, weights, or settings cannot be used.
    """
    choices = {name: settings.get(name) for name in ("scale", "grid", "rotations", "half_maps", "sharpen")}
    _check_choices(half_map_2 is not None, mask=mask, **choices)
    group = None if settings.get("symmetry") is None else point_group(settings["symmetry"])
    if not isinstance(weights, Weights):
        weights = load_weights(weights)
    pair = _read_pair(half_map_1, half_map_2, voxel_size)
    automatic = isinstance(mask, str) and mask == "auto"
    if automatic:
        mask = None
    elif isinstance(mask, Map):
        check_mask(mask, pair[0])
    elif mask is not None:
        mask = load_mask(mask, pair[0], voxel_size=voxel_size)
    reported_with_result = ("no_signal", "contrast")
    array = None if mask is None else mask.array
    validated = validate_maps(pair, array, insist=insist, without=reported_with_result)
    notes = {"warnings": validated.notes + _beyond_the_weights(weights, validated), "mask_notes": ()}
    if automatic:
        region = validated.check.region
        made = region.require()
        if group is not None and len(set(made.shape)) == 1:
            made = np.clip(symmetrize(made, group), 0, 1)  # or the output would have the mask's irregular edge
        mask, notes["mask_notes"] = pair[0].replace_array(made), region.info.notes
    return DenoiseRequest(validated.pair, weights, mask, check=validated.check, insist=insist, **notes, **settings)


def _beyond_the_weights(weights, validated):
    """Return one line if the weights are not meant for such half-maps, or for such a map."""
    check, reasons = validated.check, []
    if check is not None:
        if has_no_signal(check.curve.fsc):
            return ()
        resolution, limit = check.curve.resolution(THRESHOLD).angstrom, weights.coarsest_resolution
        reasons += [f"a resolution of {resolution:.3g} Å, coarser than {limit:g} Å"] if resolution > limit else []
    reasons += ["a missing wedge"] if any(each.kind == "missing_wedge" for each in validated.findings) else []
    if not reasons:
        return ()
    return (
        f"the weights {weights.name} are not meant for {'maps' if check is None else 'half-maps'} with "
        f"{' and '.join(reasons)}: what the result shows beyond the full map may be experience with other maps, not "
        "data",
    )


def _read_pair(half_map_1, half_map_2, voxel_size):
    if half_map_2 is None:
        return (_read_map(half_map_1, voxel_size),)
    if isinstance(half_map_1, Map) or isinstance(half_map_2, Map):
        pair = (_read_map(half_map_1, voxel_size), _read_map(half_map_2, voxel_size))
        check_same_grid(*pair, "half-maps")
        return pair
    return load_pair(half_map_1, half_map_2, voxel_size=voxel_size)


def _read_map(source, voxel_size):
    return source if isinstance(source, Map) else read_map(source, voxel_size=voxel_size)


def _check_choices(two_half_maps, *, scale, grid, rotations, half_maps, sharpen=None, mask=None):
    settings = ("scale", scale, SCALES), ("grid", grid, GRIDS), ("rotations", rotations, ROTATION_COUNTS)
    for name, value, choices in settings:
        if value is not None and value not in choices:
            raise UserError(f"`{name}`: expected one of {', '.join(map(str, choices))}, found {value}")
    needed = {
        "`scale` signal": (scale == "signal", "both half-maps, or `scale` input"),
        "`mask` auto": (isinstance(mask, str) and mask == "auto", "both, or a mask file"),
        "`half_maps`": (half_maps, "both half-maps"),
        "`sharpen`": (sharpen is not None, "both half-maps"),
    }
    for name, (wanted, remedy) in needed.items():
        if wanted and not two_half_maps:
            raise UserError(f"{name}: expected two half-maps, found one map; give {remedy}")


def _check_resolution(resolution, full):
    least, most = 2 * full.voxel_size, max(full.array.shape) * full.voxel_size / 4
    if resolution is not None and not least <= resolution <= most:
        raise UserError(
            f"`resolution`: expected {least:.4g} Å (two voxels) to {most:.4g} Å (a quarter of the box), found "
            f"{resolution:g} Å; correct it"
        )
