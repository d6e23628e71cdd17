"""The numbers of a report: curves, variances and ratios per shell, what is wrong, and what the map may be used for."""

from dataclasses import dataclass

import numpy as np

from crefjax.io.maps import Map, full_map
from crefjax.report import warnings as found
from crefjax.report.checks import shift_between, signal_shells
from crefjax.report.warnings import use_of
from crefjax.spectral.covariances import Covariances, shell_covariances
from crefjax.spectral.curves import FscCurve, has_no_signal, solvent_level
from crefjax.spectral.variances import QUANTITIES, Estimate, ShellVariances, overall_gain, variances_from


@dataclass(frozen=True)
class ReportInputs:
    """What a report is about; every map on one grid.

    Attributes:
        half_map_1: as it was.
        half_map_2: as it was.
        denoised: the denoised full map.
        denoised_1: half_map_1 denoised alone, or None.
        denoised_2: half_map_2 denoised alone, or None; both or none.
        mask: `(z, y, x)`, 0 to 1.
        mask_from: its file, or how it was made.
        parameters: of the command, for the record.
        pair_warnings: what was found wrong with the half-maps, one line each.
    """

    half_map_1: Map
    half_map_2: Map
    denoised: Map
    denoised_1: Map | None
    denoised_2: Map | None
    mask: np.ndarray
    mask_from: str
    parameters: dict
    pair_warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurements:
    """What is measured of a study before it is put into words.

    Attributes:
        masked: covariances of half-map 1, 2, denoised full map, and denoised half-map 1, 2 where there are.
        unmasked: of half-map 1, 2 and the denoised full map in the whole box.
        curve: FSC of the half-maps, masked.
        with_full: FSC of denoised and full map, masked, `(shells,)`.
        variances: None without denoised half-maps.
        mask_power: mean over the box of the squared mask.
        shifts: of the denoised map against the full map, of each denoised half-map against its half-map, Å,
            `(x, y, z)`; by `map`, `half-map 1`, `half-map 2`.
        signal_scale: whether the denoised map is crefjax's own on the scale of the signal, which fades by itself.
    """

    masked: Covariances
    unmasked: Covariances
    curve: FscCurve
    with_full: np.ndarray
    variances: ShellVariances | None
    mask_power: float
    shifts: dict[str, tuple[float, float, float]]
    signal_scale: bool


def account(study: ReportInputs) -> dict:
    """All numbers of a report, ready for JSON: NaN and infinity are None, lists run over shells 0 to N/2.

    Args:
        study: the maps.

    Returns:
        `box` (x, y, z), `voxel_size` (Å), `shell`, `frequency` (1/Å), `mask`, `curves`, `variances`, `ratios`,
        `signal_kept`, `noise_kept` (None without denoised half-maps), `resolution` (Å), `cref_rmse`, `gain`,
        `warnings` (the gravest first), `notes` and `use`. Where `trusted` is false, a value does not mean anything.
    """
    measured = measure(study)
    inner = slice(1, len(measured.with_full) - 1)
    cref = measured.curve.cref
    difference = measured.with_full * np.abs(measured.with_full) - cref**2
    z, y, x = study.half_map_1.array.shape
    size = study.half_map_1.voxel_size
    inside = float(np.count_nonzero(study.mask > 0.5))
    numbers = {
        "box": [x, y, z],
        "voxel_size": size,
        "shell": list(range(len(cref))),
        "frequency": measured.curve.frequency.tolist(),
        "mask": {"from": study.mask_from, "volume": inside * size**3, "share": inside / study.mask.size},
        "curves": _curves(measured, cref),
        "variances": None,
        "ratios": None,
        "signal_kept": None,
        "noise_kept": None,
        "resolution": {
            f"fsc_{threshold}": measured.curve.resolution(threshold)._asdict() for threshold in (0.143, 0.5)
        },
        "cref_rmse": float(np.sqrt(np.mean(difference[inner] ** 2))),
        "gain": None,
    }
    if measured.variances is not None:
        numbers |= _of_variances(measured.variances)
    numbers["warnings"] = found.warnings_of(measured) + [
        {"kind": "half_maps", "text": f"{text[0].upper()}{text[1:]}."} for text in study.pair_warnings
    ]
    numbers["notes"] = found.notes_of(measured)
    added = np.flatnonzero(found.added_shells(measured))
    begins = None if not len(added) else float(1 / measured.curve.frequency[added[0]])
    numbers["use"] = use_of([one["kind"] for one in numbers["warnings"]], begins)
    return _finite(numbers)


def measure(study: ReportInputs) -> Measurements:
    """Covariances and what follows from them; every map relative to its solvent level, the mean outside the mask."""
    maps = [study.half_map_1, study.half_map_2, study.denoised]
    if study.denoised_1 is not None and study.denoised_2 is not None:
        maps += [study.denoised_1, study.denoised_2]
    arrays = [one.array for one in maps]
    levels = [solvent_level(one, study.mask) for one in arrays]
    masked = shell_covariances(arrays, study.mask, levels=levels)
    unmasked = shell_covariances(arrays[:3], levels=levels[:3])
    first = study.half_map_1
    curve = FscCurve(first.array.shape, first.voxel_size, masked.fsc(0, 1))
    variances = None
    if len(maps) == 5:
        of_halves = masked.choose([0, 1, 3, 4])
        variances = variances_from(of_halves, gain=overall_gain(of_halves))
    return Measurements(
        masked=masked,
        unmasked=unmasked,
        curve=curve,
        with_full=masked.fsc([0.5, 0.5], 2),
        variances=variances,
        mask_power=float(np.mean([np.square(plane, dtype=np.float64).mean() for plane in study.mask]))
        / max(float(study.mask.max()), 1e-30) ** 2,
        shifts=_shifts(arrays, study.mask, first.voxel_size, curve, masked.dof),
        signal_scale=_on_signal_scale(study),
    )


def _shifts(arrays, mask, voxel_size, curve, independent):
    """Of each denoised map against the one that it was made of, told by the shells with signal."""
    last = 0 if has_no_signal(curve.fsc) else signal_shells(curve)[-1]
    numbers = np.where(np.arange(len(independent)) <= last, independent, 0)
    full = full_map(arrays[0], arrays[1])
    pairs = {"map": (full, arrays[2])}
    if len(arrays) == 5:
        pairs |= {"half-map 1": (arrays[0], arrays[3]), "half-map 2": (arrays[1], arrays[4])}
    return {name: shift_between(*pair, mask, voxel_size, independent=numbers) for name, pair in pairs.items()}


def _on_signal_scale(study):
    """From the parameters of `crefjax denoise`, or the label that it leaves in the header."""
    if "scale" in study.parameters:
        return study.parameters["scale"] == "signal"
    labels = [bytes(one).rstrip(b"\0 ") for one in study.denoised.header.fields.label]
    made = next((one for one in reversed(labels) if one), b"")
    return made.startswith(b"crefjax") and made.endswith(b"scale signal")


def _curves(measured, cref):
    masked = measured.masked
    return {
        "fsc_halves": measured.curve.fsc.tolist(),
        "fsc_halves_unmasked": measured.unmasked.fsc(0, 1).tolist(),
        "cref": cref.tolist(),
        "fsc_denoised_full": measured.with_full.tolist(),
        "fsc_denoised_full_unmasked": measured.unmasked.fsc([0.5, 0.5], 2).tolist(),
        "power_full": ((masked.of(0, 0) + masked.of(1, 1) + 2 * masked.of(0, 1)) / 4).tolist(),
        "power_denoised": masked.of(2, 2).tolist(),
    }


def _of_variances(v):
    estimates = {group: {} for group in ("variances", "ratios", None)}
    for quantity in QUANTITIES:
        estimates[quantity.group][quantity.name] = _lists(getattr(v, quantity.name))
    return {"variances": estimates["variances"], "ratios": estimates["ratios"], **estimates[None], "gain": v.gain}


def _lists(one: Estimate):
    return {"value": one.value.tolist(), "error": one.error.tolist(), "trusted": one.trusted.tolist()}


def _finite(value):
    """The same with None for what JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.bool_):
        return bool(value)
    return value
