"""Checks of two half-maps before any work is done with them, and the corrections that are safe to make.

A pair is two reconstructions of one specimen, in the same place and orientation and on the same scale, with independent
noise that has not been filtered or masked away. If a refinement, a copy, or a conversion changed one of them, the
signal and the noise that they share show it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from crefjax.data.alignment import find_orientation, find_shift
from crefjax.data.grid import VOXELS, find_grid
from crefjax.errors import path_error
from crefjax.io.maps import Map, full_map
from crefjax.masking import MeasurementMask, auto_mask
from crefjax.masking.threshold import INVERTED_CONTRAST, has_inverted_contrast
from crefjax.spectral.curves import (
    THRESHOLD,
    FscCurve,
    count_shell_voxels,
    fsc_from_products,
    has_no_signal,
    shell_products,
    solvent_level,
)
from crefjax.spectral.directional import empty_directions
from crefjax.utils.statistics import mean_and_std, robust_std

# Half-maps on one scale: largest ratio of the standard deviations, largest offset over the standard deviation.
_SCALE, _LEVEL = 1.25, 0.2
_OPPOSITE = -0.3  # FSC at low frequencies with a half-map of the other sign
_SAME, _HALF_AND_FULL, _FLAT = 0.99, (0.66, 0.75), 0.05  # FSC at frequencies that hold noise alone
_MOSTLY_SIGNAL = 0.85  # FSC at low frequencies of a half-map and a useful full map
_FILTERED, _END = 1e-3, 0.75  # share of the noise's power beyond a low-pass; the highest low-pass, over Nyquist
_CONSTANT = 0.1  # of the inscribed sphere
_SHARED, _FEWEST = 0.5, 3  # FSC above which a shell is mostly signal; number of such shells that determine a scale
_LISTED = 3  # hot voxels whose places are named

# A single voxel far outside all others comes from a bad pixel or a damaged file. With a thousand standard deviations it
# has more power than a small map, in every shell alike, and ruins every measurement.
_HOT = 30.0  # standard deviations of a hot voxel
_FAR = 8.0  # times the 99th percentile: where most of a map is masked, the standard deviation is small
_ALONE = 0.2  # of the hot voxel: largest mean of its neighbors, one of which may be as hot
_MOST_HOT = 64  # in a sound map; more of them are density
_SAMPLED = 64  # sections


@dataclass(frozen=True)
class Finding:
    """A problem of a pair.

    Attributes:
        kind: `same_noise`, `orientation`, `shift`, `scale`, `no_signal`, `filtered`, `masked`, `fall_off`,
            `contrast`, `missing_wedge`, or `hot_voxel`.
        serious: whether the two are not a pair, so that any result from them would be wrong.
        text: one line for the user.
        numbers: those in the text, by name; places are `[x, y, z]`.
    """

    kind: str
    serious: bool
    text: str
    numbers: dict = field(default_factory=dict)


@dataclass(frozen=True)
class PairCheck:
    """The result of checking a pair.

    Attributes:
        findings: the serious ones first.
        halves: the half-maps for further work: hot voxels replaced, and half-map 2 on the scale of half-map 1; the
            given arrays if nothing was corrected.
        curve: their FSC under the mask.
        region: the mask, given or made.
        products: `shell_products` of these half-maps, less their solvent levels, under the mask.
    """

    findings: tuple[Finding, ...]
    halves: tuple[np.ndarray, np.ndarray]
    curve: FscCurve
    region: MeasurementMask
    products: np.ndarray

    @property
    def serious(self) -> bool:
        """Whether any finding is serious."""
        return any(finding.serious for finding in self.findings)

    def describe_resolution(self, *, mask_given: bool) -> str:
        """Return in words where the FSC of the half-maps falls below 0.143, and within which region."""
        region = "the mask" if mask_given else "the whole box" if self.region.array is None else "a mask made from them"
        resolution = self.curve.resolution(THRESHOLD)
        where = f"falls below 0.143 at {resolution.angstrom:.2f} Å" if resolution.crossed else "never falls below 0.143"
        return f"FSC of the half-maps {where}, within {region}"


@dataclass(frozen=True)
class ValidatedMaps:
    """Two half-maps, or one full map, ready for further work.

    Attributes:
        pair: the maps; the given ones if nothing was corrected.
        check: the result for two half-maps; None for one map.
        notes: one line for each thing that the user should know.
        findings: of the check, or of the one map.
    """

    pair: tuple[Map, ...]
    check: PairCheck | None
    notes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


def validate_maps(
    pair: tuple[Map, ...],
    mask: np.ndarray | None = None,
    *,
    insist: bool | None = False,
    fall_off: bool = False,
    without: Sequence[str] = (),
) -> ValidatedMaps:
    """Check half-maps before work, and correct hot voxels and the scale of half-map 2.

    Args:
        pair: two half-maps on one grid, or one full map.
        mask: `(z, y, x)`, 0 to 1, to measure within; None to have one made.
        insist: whether to continue if they are not a pair; None if the user has no option for that.
        fall_off: see `check_pair`.
        without: kinds of findings that are not among the notes.

    Raises:
        UserError: they are not a pair, and the user does not insist.
    """
    if len(pair) == 1:
        return _validate_map(pair[0])
    check = check_pair(*(map_.array for map_ in pair), pair[0].voxel_size, mask, fall_off=fall_off)
    if check.serious and not insist:
        names = [str(map_.path or f"half-map {number}") for number, map_ in enumerate(pair, 1)]
        text = "; ".join(finding.text for finding in check.findings if finding.serious)
        raise path_error(" and ".join(names), text + ("" if insist is None else ", or `insist` on these"))
    maps = (
        map_ if array is map_.array else map_.replace_array(array)
        for map_, array in zip(pair, check.halves, strict=True)
    )
    notes = tuple(finding.text for finding in check.findings if finding.kind not in without)
    return ValidatedMaps(tuple(maps), check, notes, tuple(check.findings))


def _validate_map(map_):
    """Return a full map without hot voxels, and notes on it."""
    places, findings = find_hot_voxels(map_.array), []
    if places:
        findings += _hot_voxel_findings(map_.array, places, "the map")
        map_ = map_.replace_array(replace_hot_voxels(map_.array, places))
    if empty := empty_directions(map_.array):
        findings.append(_missing_wedge("the map has no power", *empty))
    return ValidatedMaps((map_,), None, tuple(finding.text for finding in findings), tuple(findings))


def check_pair(
    half_map_1: np.ndarray,
    half_map_2: np.ndarray,
    voxel_size: float,
    mask: np.ndarray | None = None,
    *,
    fall_off: bool = True,
) -> PairCheck:
    """Search a pair for all known problems.

    Args:
        half_map_1: `(z, y, x)`, float32, finite.
        half_map_2: the same shape.
        voxel_size: Å.
        mask: the same shape, 0 to 1; None to have one made.
        fall_off: whether to search for sharpening and blurring too; `find_grid` does so itself.
    """
    hot = [find_hot_voxels(half_map) for half_map in (half_map_1, half_map_2)]
    first, second = (replace_hot_voxels(*each) for each in zip((half_map_1, half_map_2), hot, strict=True))
    products = shell_products([first, second])
    ratio, offset = _scale_between(first, second, products)
    findings = [*_scale(first, ratio, offset)]
    if findings:
        second = (second - np.float32(offset)) / np.float32(ratio)
    else:
        ratio = 1.0
    region = MeasurementMask(mask) if mask is not None else auto_mask(first, second, voxel_size)
    if same := _same_noise(products):
        findings.append(same)
    else:
        findings += _place(first, second, voxel_size, region.array)
    masked_products = _masked_products(first, second, region.array)
    curve = FscCurve(first.shape, voxel_size, fsc_from_products(masked_products))
    if _nothing_shared(curve) and not any(finding.serious for finding in findings):
        text = "the half-maps hardly correlate; check that they come from one refinement"
        findings.append(Finding("no_signal", False, text))
    findings += _filtered(products, ratio, max(first.shape) * voxel_size)
    sound = not any(finding.serious for finding in findings)
    if sound and (empty := empty_directions(first, second, curve.last_shell())):
        findings.append(_missing_wedge("the half-maps have neither signal nor noise", *empty))
    full = full_map(first, second)
    findings += _masked(full)
    if has_inverted_contrast(full, voxel_size):
        findings.append(Finding("contrast", False, INVERTED_CONTRAST))
    if fall_off and not any(finding.serious or finding.kind in ("filtered", "no_signal") for finding in findings):
        grid = find_grid([first, second], voxel_size, region.array, voxels=VOXELS, keep=True, products=masked_products)
        findings += [Finding("fall_off", False, note, {"b_factor": grid.blur}) for note in grid.notes if grid.blur]
    for number, (half_map, places) in enumerate(zip((half_map_1, half_map_2), hot, strict=True), 1):
        findings += _hot_voxel_findings(half_map, places, f"half-map {number}")
    findings.sort(key=lambda finding: not finding.serious)
    return PairCheck(tuple(findings), (first, second), curve, region, masked_products)


def _nothing_shared(curve):
    # The first shells taken together must be low too: in a small box one of them may be low by chance.
    low = slice(1, max(4, len(curve.fsc) // 10))
    together = np.average(curve.fsc[low], weights=count_shell_voxels(curve.box)[low])
    return has_no_signal(curve.fsc) and together < THRESHOLD


def _masked_products(first, second, mask):
    levels = [solvent_level(half_map, mask) for half_map in (first, second)]
    return shell_products([first, second], mask, levels=levels)


def _curve(first, second, voxel_size, mask):
    return FscCurve(first.shape, voxel_size, fsc_from_products(_masked_products(first, second, mask)))


def _scale_between(first, second, products):
    """Return half-map 2 as a multiple of half-map 1 and an offset, by shells that are mostly signal, if any."""
    (mean_1, std_1), (mean_2, std_2) = mean_and_std(first), mean_and_std(second)
    fsc = fsc_from_products(products)
    sign = -1 if np.median(fsc[1 : max(4, len(fsc) // 10)]) < _OPPOSITE else 1
    ratio = std_2 / std_1
    shared = np.flatnonzero(sign * fsc[1:] > _SHARED) + 1
    if len(shared) >= _FEWEST:
        ratio = float(np.sqrt(products[shared, 1, 1].sum() / products[shared, 0, 0].sum()))
    return sign * ratio, mean_2 - sign * ratio * mean_1


def _scale(first, ratio, offset):
    mean, std = mean_and_std(first)
    if 1 / _SCALE <= ratio <= _SCALE and abs(offset + (ratio - 1) * mean) <= _LEVEL * std:
        return
    text = f"half-map 2 is not on the scale of half-map 1 but about {ratio:.3g} times as large"
    text += f", {'plus' if offset >= 0 else 'minus'} {abs(offset):.3g}; it is rescaled to match"
    yield Finding("scale", False, text, {"ratio": ratio, "offset": offset})


def _same_noise(products):
    # At high frequencies there is noise alone, which is independent in two half-maps.
    fsc = fsc_from_products(products)
    power = products[:, 0, 0]
    last = np.flatnonzero(power > 1e-10 * power.max())
    last = last[last >= 2 * len(fsc) // 3]
    if len(last) < 3:
        return None
    curve = fsc[last]
    middle, spread = float(np.median(curve)), float(np.ptp(np.percentile(curve, (10, 90))))
    if abs(middle) > _SAME:
        text = "the half-maps have the same noise: they are one half-map twice, or free of noise"
    elif (
        _HALF_AND_FULL[0] < abs(middle) < _HALF_AND_FULL[1]
        and spread < _FLAT
        and _like_half_and_full(fsc, products, last)
    ):
        text = "the half-maps share half of their noise, as a half-map and the full map do"
    else:
        return None
    text += "; give the two half-maps of one refinement, unfiltered"
    return Finding("same_noise", True, text, {"fsc_at_high_frequencies": middle})


def _like_half_and_full(fsc, products, last):
    """Return whether a level FSC is that of a half-map and a full map, and not of a flat signal.

    With a full map the FSC rises to 1 at low frequencies, or the noise has half the power.
    """
    ratio = float(np.median(products[last, 1, 1] / products[last, 0, 0]))
    return np.median(np.abs(fsc[1 : max(4, len(fsc) // 4)])) > _MOSTLY_SIGNAL or 1.8 < max(ratio, 1 / ratio) < 2.2


def _place(first, second, voxel_size, mask):
    rotated, orientation = find_orientation(first, second, mask)
    voxels = find_shift(first, rotated, mask)
    if not orientation and not any(voxels):
        return
    aligned = np.roll(rotated, [-axis for axis in voxels], (0, 1, 2))
    mask = auto_mask(first, aligned, voxel_size).array if mask is None else mask
    before, after = (
        _curve(first, other, voxel_size, mask).resolution(THRESHOLD).angstrom for other in (second, aligned)
    )
    shift = [axis * voxel_size for axis in voxels[::-1]]
    changes = [orientation] if orientation else []
    if any(shift):
        changes.append("shifted by " + ", ".join(f"{axis:.3g}" for axis in shift) + " Å along x, y, z")
    text = f"half-map 2 is {' and '.join(changes)} relative to half-map 1: FSC-0.143 at "
    text += f"{before:.3g} Å as it is, {after:.3g} Å with that undone; give the two half-maps of one refinement"
    numbers = {"shift": shift, "orientation": orientation, "resolution": before, "resolution_when_undone": after}
    yield Finding("orientation" if orientation else "shift", True, text, numbers)


def _filtered(products, ratio, length):
    # The noise of half-maps continues to Nyquist; after a low-pass it ends within a few shells.
    power = products[:, 0, 0] + products[:, 1, 1] / ratio**2 - 2 * products[:, 0, 1] / ratio
    for end in range(4, int(_END * len(power))):
        before, beyond = (
            np.median(power[int(low * end) : int(high * end) + 1]) for low, high in ((0.6, 0.9), (1.15, 1.3))
        )
        if beyond < _FILTERED * before:
            angstrom = length / end
            text = (
                f"the half-maps were low-passed at about {angstrom:.2g} Å; give unfiltered ones: nothing can be gained "
                "beyond that, and no noise can be measured there"
            )
            yield Finding("filtered", False, text, {"low_pass": angstrom})
            return


def _missing_wedge(found, share, direction):
    text = (
        f"{found} in {share:.0%} of all directions, around (x, y, z) = "
        f"({', '.join(f'{value:.2f}' for value in direction)}): a missing wedge or cone, as of a tomogram or of a "
        "subtomogram average; density is smeared along it"
    )
    return Finding("missing_wedge", False, text, {"share": share, "direction": list(direction)})


def _masked(full):
    # A sphere around a reconstruction is usual; a mask within it removes the noise that is needed for every estimate.
    center = [np.abs(np.arange(side) - (side - 1) / 2) / (side / 2) for side in full.shape]
    values, counts = np.unique(full[:: max(1, full.shape[0] // 64)], return_counts=True)
    level = values[counts.argmax()]
    constant = inside = 0
    for z, plane in zip(center[0], full, strict=True):
        sphere = z**2 + center[1][:, None] ** 2 + center[2] ** 2 < 0.81
        inside += int(sphere.sum())
        constant += int(np.sum(sphere & (plane == level)))
    share = constant / max(inside, 1)
    if share > _CONSTANT:
        text = (
            f"the half-maps were multiplied by a mask: {share:.0%} of the sphere in the box has one value; give them "
            "as the refinement wrote them"
        )
        yield Finding("masked", False, text, {"share": share})


def find_hot_voxels(array: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the places `(z, y, x)` of voxels far outside the map's values and their neighbors, the farthest first.

    Args:
        array: `(z, y, x)`, float32, finite.
    """
    median, std = _robust_moments(array)
    if not std > 0:
        return []
    sample = np.abs(array[:: max(1, array.shape[0] // _SAMPLED)] - np.float32(median))
    bound = np.float32(max(_HOT * std, _FAR * float(np.percentile(sample, 99))))
    places = []
    for z, plane in enumerate(array):
        far = np.argwhere(np.abs(plane - np.float32(median)) > bound)
        if len(places) + len(far) > 27 * _MOST_HOT:
            return []
        places += [(z, int(y), int(x)) for y, x in far]
    alone = [place for place in places if _is_alone(array, place, median)]
    if len(alone) > _MOST_HOT:
        return []
    return sorted(alone, key=lambda place: -abs(float(array[place]) - median))


def replace_hot_voxels(array: np.ndarray, places: list[tuple[int, int, int]]) -> np.ndarray:
    """Return a map whose hot voxels have the mean of their other neighbors; the same array if there are none.

    Args:
        array: `(z, y, x)`.
        places: from `find_hot_voxels`.
    """
    if not places:
        return array
    hot = np.zeros(array.shape, bool)
    hot[tuple(np.transpose(places))] = True
    out = array.copy()
    for place in places:
        sound = ~_neighborhood(hot, place)
        out[place] = _neighborhood(array, place)[sound].mean(dtype=np.float64) if sound.any() else np.median(array)
    return out


def _robust_moments(array):
    """Return the median, and the standard deviation by the median absolute deviation, of evenly chosen sections."""
    sample = array[:: max(1, array.shape[0] // _SAMPLED)]
    median = float(np.median(sample))
    return median, robust_std(sample, median)


def _neighborhood(array, place):
    """Return the voxel and the 26 around it; at the border, those of the other side of the box."""
    return array[np.ix_(*(np.arange(at - 1, at + 2) % side for at, side in zip(place, array.shape, strict=True)))]


def _is_alone(array, place, median):
    near = _neighborhood(array, place)
    around = (float(near.sum(dtype=np.float64)) - float(array[place])) / (near.size - 1) - median
    return abs(around) <= _ALONE * abs(float(array[place]) - median)


def _hot_voxel_findings(array, places, what):
    if not places:
        return []
    median, std = _robust_moments(array)
    several = len(places) > 1
    listed = ", ".join(
        f"{x}, {y}, {z} ({abs(float(array[z, y, x]) - median) / std:.0f} standard deviations)"
        for z, y, x in places[:_LISTED]
    )
    text = f"{what} has {len(places)} hot voxels" if several else f"{what} has a hot voxel"
    text += f" at x, y, z = {listed}{' and so on' if len(places) > _LISTED else ''}, counted from 0; "
    text += ("each" if several else "it") + " is replaced by the mean of its neighbors"
    return [Finding("hot_voxel", False, text, {"map": what, "places": [[x, y, z] for z, y, x in places]})]
