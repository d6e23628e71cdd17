"""The maps of a report, and its numbers: curves, variances, and ratios per shell, with warnings and recommendations."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import scipy.fft

from crefjax.data.pair_check import validate_maps
from crefjax.errors import path_error
from crefjax.io.entries import load_mask, load_pair
from crefjax.io.files import finite_json
from crefjax.io.maps import ISOTROPY, Map, check_same_grid, full_map, read_map
from crefjax.report.warnings import added_shells, find_notes, find_warnings, recommendations
from crefjax.spectral.b_factors import GUINIER_FROM, Sharpening
from crefjax.spectral.covariances import Covariances, shell_covariances
from crefjax.spectral.curves import THRESHOLD, FscCurve, has_no_signal, solvent_level
from crefjax.spectral.directional import HALF_ANGLE, Anisotropy, DirectionalFsc, anisotropy, directional_fsc
from crefjax.spectral.local_maps import LocalMaps, local_maps
from crefjax.spectral.shells import box_shells, shell_voxels
from crefjax.spectral.variances import QUANTITIES, ShellVariances, overall_gain, variances_from

if TYPE_CHECKING:
    from crefjax.inference.denoise import Denoised
    from crefjax.inference.request import DenoiseRequest
    from crefjax.spectral.symmetry import SymmetryMatch

THRESHOLDS = (THRESHOLD, 0.5)
AUTOMATIC_MASK = "made automatically"
_WHOLE_BOX = "none, the whole box"
# Standard deviations of the correlation under chance by which a shift must beat no shift: it is the best of very
# many places.
_SHIFT_SIGMAS = 7.0
# Share of what a true shift would gain over no shift; less is a shift by a part of a voxel, or an effect of a filter.
_SHIFT_GAIN = 0.5


@dataclass(frozen=True)
class ReportInputs:
    """The maps of a report, all on one grid.

    Attributes:
        half_map_1: noisy half-map 1.
        half_map_2: noisy half-map 2.
        denoised: the denoised full map; its path is where it is, or will be, written.
        denoised_1: half_map_1 denoised alone, or None.
        denoised_2: half_map_2 denoised alone, or None; both or neither.
        mask: `(z, y, x)`, 0 to 1.
        mask_from: name of its file, or `AUTOMATIC_MASK`; None for the whole box, without a mask.
        parameters: parameters of the command, for the record.
        pair_warnings: findings of the check of the half-maps, one line each.
        mask_notes: notes on a mask that was made, one line each.
        symmetry: how symmetric the input and the network's output were, before they were averaged over a point group;
            None if they were not.
        sharpening: of a copy of the denoised full map, with the Guinier plot; None if there is none.
    """

    half_map_1: Map
    half_map_2: Map
    denoised: Map
    denoised_1: Map | None
    denoised_2: Map | None
    mask: np.ndarray
    mask_from: str | None
    parameters: dict
    pair_warnings: tuple[str, ...] = ()
    mask_notes: tuple[str, ...] = ()
    symmetry: "SymmetryMatch | None" = None
    sharpening: Sharpening | None = None

    @classmethod
    def from_files(
        cls,
        half_maps: Sequence[Path | str],
        denoised: Path | str,
        denoised_half_maps: Sequence[Path | str] = (),
        mask: Path | str | None = None,
        *,
        voxel_size: float | None = None,
        insist: bool = False,
        parameters: dict,
    ) -> Self:
        """Read and check the maps of a report on the output of any program.

        Args:
            half_maps: the two noisy half-maps.
            denoised: the denoised full map.
            denoised_half_maps: both half-maps, each denoised alone, or none.
            mask: a file, or None to make a mask.
            voxel_size: Å, of all maps; None for that of their headers.
            insist: whether to continue with half-maps that are not a pair.
            parameters: of the command.

        Raises:
            UserError: a map cannot be read, the half-maps are not a pair, a denoised map lies on another grid, the
                denoised half-maps are the same map, or no mask can be made.
        """
        pair = load_pair(*half_maps, voxel_size=voxel_size)
        full = read_map(denoised, voxel_size=voxel_size)
        check_denoised(full, pair[0])
        denoised_pair = [read_map(path, voxel_size=voxel_size) for path in denoised_half_maps]
        for half_map in denoised_pair:
            check_denoised(half_map, pair[0], "denoised half-map")
        if denoised_pair and np.array_equal(*(half_map.array for half_map in denoised_pair)):
            raise path_error(
                " and ".join(str(half_map.path) for half_map in denoised_pair),
                "expected two denoised half-maps, found the same map twice (all voxels equal); give HALF1 and HALF2, "
                "each denoised alone",
            )
        region = None if mask is None else load_mask(mask, pair[0], voxel_size=voxel_size).array
        used = validate_maps(pair, region, insist=insist, without=("no_signal",))
        return cls(
            *used.pair,
            full,
            *(denoised_pair or (None, None)),
            mask=used.check.region.require(),
            mask_from=AUTOMATIC_MASK if mask is None else Path(mask).name,
            parameters=parameters,
            pair_warnings=used.notes,
            mask_notes=used.check.region.notes,
        )

    @classmethod
    def from_denoised(
        cls, request: "DenoiseRequest", result: "Denoised", *, mask_from: str, output: Path, parameters: dict
    ) -> Self:
        """Gather what `crefjax denoise` has in memory.

        Args:
            request: what was denoised, two half-maps.
            result: with denoised half-maps.
            mask_from: name of the mask's file, or `AUTOMATIC_MASK`.
            output: path of the denoised full map.
            parameters: of the command.
        """
        region = request.region.array
        return cls(
            *request.pair,
            replace(result.full, path=output),
            result.half_map_1,
            result.half_map_2,
            mask=np.ones_like(request.pair[0].array) if region is None else region,
            mask_from=None if region is None else mask_from,
            parameters=parameters,
            pair_warnings=request.warnings,
            symmetry=result.symmetry,
            sharpening=request.sharpening,
        )

    @property
    def full_map(self) -> np.ndarray:
        """Mean of the half-maps, computed at every access."""
        return full_map(self.half_map_1.array, self.half_map_2.array)

    def local_maps(self) -> LocalMaps:
        """Measure agreement and change around every voxel; needs denoised half-maps."""
        maps = (self.half_map_1, self.half_map_2, self.denoised_1, self.denoised_2)
        return local_maps(*(half_map.array for half_map in maps), self.half_map_1.voxel_size, self.mask)


def check_denoised(denoised: Map, half_map: Map, name: str = "denoised map") -> None:
    """Check that a denoised map lies on its half-map's grid.

    Raises:
        UserError: it does not; the message says so if its voxels are finer or coarser by a whole number.
    """
    shape, denoised_shape = np.array(half_map.array.shape), np.array(denoised.array.shape)
    factor = half_map.voxel_size / denoised.voxel_size
    ratio = max(factor, 1 / factor)
    times = round(ratio)
    same_box = np.array_equal(denoised_shape, times * shape if factor > 1 else shape / times)
    if times > 1 and same_box and abs(ratio - times) < ISOTROPY * times:
        raise path_error(
            denoised.path,
            f"expected a {name} on the grid of {half_map.path}, {_grid(half_map)}, found one {times} times as "
            f"{'fine' if factor > 1 else 'coarse'}, {_grid(denoised)}; denoise without resampling (LAFTER: "
            "--downsample), or resample it, in ChimeraX: volume resample #2 onGrid #1",
        )
    check_same_grid(half_map, denoised, f"half-map and {name}")


def _grid(map_):
    z, y, x = map_.array.shape
    return f"{x}x{y}x{z} voxels of {map_.voxel_size:.5g} Å"


@dataclass(frozen=True)
class Measurements:
    """The measurements from which the numbers and the warnings of a report follow.

    Attributes:
        masked: covariances of half-map 1, half-map 2, the denoised full map, and denoised half-map 1 and 2 if present.
        unmasked: of half-map 1, half-map 2, and the denoised full map in the whole box.
        curve: FSC of the half-maps, masked.
        fsc_to_full: FSC of denoised and full map, masked, `(shells,)`.
        variances: None without denoised half-maps.
        mask_power: mean over the box of the squared mask.
        shifts: of the denoised map against the full map, of each denoised half-map against its half-map, Å,
            `(x, y, z)`; by `map`, `half-map 1`, `half-map 2`.
        signal_scale: whether the denoised map is crefjax's, on the scale of the signal, and so fades out by itself.
        symmetry: as in `ReportInputs`.
        directional: FSC of the half-maps by direction, masked.
        anisotropy: what follows from it.
    """

    masked: Covariances
    unmasked: Covariances
    curve: FscCurve
    fsc_to_full: np.ndarray
    variances: ShellVariances | None
    mask_power: float
    shifts: dict[str, tuple[float, float, float]]
    signal_scale: bool
    symmetry: "SymmetryMatch | None" = None
    directional: DirectionalFsc | None = None
    anisotropy: Anisotropy | None = None


def report_numbers(inputs: ReportInputs) -> dict:
    """Return all numbers of a report, ready for JSON: NaN and infinity are None, lists run over shells 0 to N/2.

    Returns:
        `box` (x, y, z), `voxel_size` (Å), `shell`, `frequency` (1/Å), `mask`, `curves`, `variances`, `ratios`,
        `signal_kept`, `noise_kept` (None without denoised half-maps), `resolution` (Å), `directional`, `symmetry` (of
        `crefjax.spectral.symmetry.SymmetryMatch`, or None), `guinier` (None without a sharpened copy), `cref_rmse`,
        `gain`, `warnings` (the most serious first), `notes`, and `use`. A value is meaningless where `trusted` is
        false.
    """
    measured = measure(inputs)
    inner = slice(1, len(measured.fsc_to_full) - 1)
    cref = measured.curve.cref
    difference = measured.fsc_to_full * np.abs(measured.fsc_to_full) - cref**2
    voxel_size = inputs.half_map_1.voxel_size
    inside = float(np.count_nonzero(inputs.mask > 0.5))
    warnings = find_warnings(measured, inputs.pair_warnings)
    added = np.flatnonzero(added_shells(measured))
    numbers = {
        "box": list(inputs.half_map_1.array.shape[::-1]),
        "voxel_size": voxel_size,
        "shell": list(range(len(cref))),
        "frequency": measured.curve.frequency.tolist(),
        "mask": {
            "from": inputs.mask_from or _WHOLE_BOX,
            "whole_box": inputs.mask_from is None,
            "volume": inside * voxel_size**3,
            "share": inside / inputs.mask.size,
        },
        "curves": _curves(measured),
        "variances": None,
        "ratios": None,
        "signal_kept": None,
        "noise_kept": None,
        "resolution": {f"fsc_{threshold}": measured.curve.resolution(threshold)._asdict() for threshold in THRESHOLDS},
        "symmetry": None if measured.symmetry is None else asdict(measured.symmetry),
        "directional": _directional(measured.directional, measured.anisotropy),
        "guinier": None if inputs.sharpening is None else _guinier(inputs.sharpening),
        "cref_rmse": float(np.sqrt(np.mean(difference[inner] ** 2))),
        "gain": None,
        **_variance_numbers(measured.variances),
        "warnings": warnings,
        "notes": find_notes(measured),
        "use": recommendations(
            [warning["kind"] for warning in warnings],
            float(1 / measured.curve.frequency[added[0]]) if len(added) else None,
        ),
    }
    return finite_json(numbers)


def measure(inputs: ReportInputs) -> Measurements:
    """Measure the maps, each relative to its solvent level, the mean outside the mask."""
    maps = [inputs.half_map_1, inputs.half_map_2, inputs.denoised]
    if inputs.denoised_1 is not None and inputs.denoised_2 is not None:
        maps += [inputs.denoised_1, inputs.denoised_2]
    arrays = [map_.array for map_ in maps]
    levels = [solvent_level(array, inputs.mask) for array in arrays]
    masked = shell_covariances(arrays, inputs.mask, levels=levels)
    if inputs.symmetry is not None:  # copies of one asymmetric unit hold the same noise
        masked = masked.with_copies(inputs.symmetry.order)
    unmasked = shell_covariances(arrays[:3], levels=levels[:3])
    first = inputs.half_map_1
    curve = FscCurve(first.array.shape, first.voxel_size, masked.fsc(0, 1))
    directional = directional_fsc(
        arrays[0], arrays[1], first.voxel_size, inputs.mask, resolution=curve.resolution(THRESHOLD).angstrom
    )
    variances = None
    if len(maps) == 5:
        of_halves = masked.choose([0, 1, 3, 4])
        variances = variances_from(of_halves, gain=overall_gain(of_halves))
    return Measurements(
        masked=masked,
        unmasked=unmasked,
        curve=curve,
        fsc_to_full=masked.fsc([0.5, 0.5], 2),
        variances=variances,
        mask_power=float(np.mean([np.square(plane, dtype=np.float64).mean() for plane in inputs.mask]))
        / max(float(inputs.mask.max()), 1e-30) ** 2,
        shifts=_shifts(inputs, curve, masked.dof),
        signal_scale=_on_signal_scale(inputs),
        symmetry=inputs.symmetry,
        directional=directional,
        anisotropy=anisotropy(directional, curve.fsc, masked.dof),
    )


def _shifts(inputs, curve, independent):
    """Estimate shifts of each denoised map against the map that it was made of, from the shells with signal."""
    last = 0 if has_no_signal(curve.fsc) else curve.signal_shells()[-1]
    numbers = np.where(np.arange(len(independent)) <= last, independent, 0)
    pairs = {"map": (inputs.full_map, inputs.denoised.array)}
    if inputs.denoised_1 is not None and inputs.denoised_2 is not None:
        pairs["half-map 1"] = (inputs.half_map_1.array, inputs.denoised_1.array)
        pairs["half-map 2"] = (inputs.half_map_2.array, inputs.denoised_2.array)
    return {
        name: estimate_shift(*pair, inputs.mask, curve.voxel_size, independent=numbers) for name, pair in pairs.items()
    }


def estimate_shift(
    before: np.ndarray, denoised: np.ndarray, mask: np.ndarray, voxel_size: float, *, independent: np.ndarray
) -> tuple[float, float, float]:
    """Estimate how far the content of a denoised map lies from that of the map before.

    Phases are correlated, with equal weight for all voxels of the given shells, so that the peak is sharp. Its height
    is the mean of `cos(phase difference)`, whose standard deviation under chance is one over the root of the number of
    independent values. An apparent shift by r of maps that lie in place would have, at 0, a height lower by the factor
    `b(r)`, the mean of `cos(2π k r)` over the shells. A shift is reported where the peak exceeds the height at 0 by
    half of that and by several standard deviations of the difference.

    Args:
        before: `(z, y, x)`.
        denoised: the same shape; its sign does not matter.
        mask: the same shape, 0 to 1.
        voxel_size: Å.
        independent: `(shells,)`, independent values in the shells to use, 0 in others.

    Returns:
        `(x, y, z)` in Å, whole voxels; zeros where no shift is certain.
    """
    chosen = independent > 0
    chosen[0] = False
    if not np.any(chosen):
        return (0.0, 0.0, 0.0)
    shells = box_shells(tuple(before.shape))
    band = np.append(chosen, False)[np.asarray(shells.index)]
    cross = _spectrum(before, mask)
    cross *= np.conj(_spectrum(denoised, None))
    size = np.abs(cross)
    # Coefficients far below the largest are rounding errors, without a phase.
    usable = band & (size > 1e-14 * float(size.max(initial=0, where=band)))
    cross = np.divide(cross, size, out=np.zeros_like(cross), where=usable)
    height = scipy.fft.irfftn(cross, s=before.shape, workers=-1, overwrite_x=True)
    counts = np.asarray(shell_voxels(shells), np.float64) * chosen
    height *= before.size / np.sum(counts)
    np.abs(height, out=height)
    place = np.unravel_index(int(np.argmax(height)), height.shape)
    voxels = [-(p if p <= n // 2 else p - n) for p, n in zip(place, height.shape, strict=True)]
    turns = 2 * np.linalg.norm(voxels) * np.arange(len(counts)) / max(before.shape)
    lower = 1 - np.sum(counts * np.sinc(turns)) / np.sum(counts)
    best, at_0 = float(height[place]), float(height[0, 0, 0])
    std = np.sqrt(2 * max(lower, 0.0) / np.sum(independent[chosen]))
    if best - at_0 <= max(_SHIFT_GAIN * lower * best, _SHIFT_SIGMAS * std):
        return (0.0, 0.0, 0.0)
    return tuple(float(v) * voxel_size + 0.0 for v in voxels[::-1])


def _spectrum(array, mask):
    """Transform a map relative to its solvent level, divided by its largest value: products stay in float32's range."""
    centered = array - np.float32(solvent_level(array, mask))
    largest = float(np.max(np.abs(centered)))
    centered /= np.float32(largest if largest > 0 else 1)
    if mask is not None:
        centered *= mask
    return scipy.fft.rfftn(centered, workers=-1)


def _on_signal_scale(inputs):
    """Look at the parameters of `crefjax denoise`, or at the label that it leaves in the header."""
    if "scale" in inputs.parameters:
        return inputs.parameters["scale"] == "signal"
    labels = [bytes(label).rstrip(b"\0 ") for label in inputs.denoised.header.fields.label]
    last = next((label for label in reversed(labels) if label), b"")
    return last.startswith(b"crefjax") and last.endswith(b"scale signal")


def _curves(measured):
    masked = measured.masked
    return {
        "fsc_halves": measured.curve.fsc.tolist(),
        "fsc_halves_unmasked": measured.unmasked.fsc(0, 1).tolist(),
        "cref": measured.curve.cref.tolist(),
        "fsc_denoised_full": measured.fsc_to_full.tolist(),
        "fsc_denoised_full_unmasked": measured.unmasked.fsc([0.5, 0.5], 2).tolist(),
        "power_full": ((masked.of(0, 0) + masked.of(1, 1) + 2 * masked.of(0, 1)) / 4).tolist(),
        "power_denoised": masked.of(2, 2).tolist(),
    }


def _variance_numbers(variances: ShellVariances | None):
    if variances is None:
        return {}

    estimates = {group: {} for group in ("variances", "ratios", None)}
    for quantity in QUANTITIES:
        estimate = getattr(variances, quantity.name)
        lists = {key: getattr(estimate, key).tolist() for key in ("value", "error", "trusted")}
        estimates[quantity.group][quantity.name] = lists
    return {
        "variances": estimates["variances"],
        "ratios": estimates["ratios"],
        **estimates[None],
        "gain": variances.gain,
    }


def _directional(directional: DirectionalFsc, found: Anisotropy):
    return {
        "half_angle": HALF_ANGLE,
        "direction": directional.directions.tolist(),
        "resolution": [resolution.angstrom for resolution in directional.resolutions()],
        "fsc_low": np.quantile(directional.fsc, 0.05, axis=0).tolist(),
        "fsc_high": np.quantile(directional.fsc, 0.95, axis=0).tolist(),
        **asdict(found),
        "preferred": found.preferred,
        "text": found.describe(),
    }


def _guinier(sharpening: Sharpening):
    return {
        "b_factor": sharpening.b_factor,
        "given": sharpening.given,
        "resolution": sharpening.resolution,
        "coarsest": GUINIER_FROM,
        "log_amplitude": sharpening.log_amplitude.tolist(),
        "log_weighted": sharpening.log_weighted.tolist(),
        "fit": sharpening.fit,
    }
