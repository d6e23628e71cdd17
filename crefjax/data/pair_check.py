"""Checks of two half-maps before any work is done with them.

A pair is two reconstructions of one specimen in one place and orientation, on one scale, with independent noise that
has not been filtered or masked away. What a refinement, a copy, or a conversion did to one of them shows in what the
two have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from crefjax.data.alignment import find_orientation, find_shift
from crefjax.data.grid import THRESHOLD, VOXELS, find_grid
from crefjax.errors import path_error
from crefjax.io.maps import Map
from crefjax.masking import MeasurementMask, auto_mask, inverted_contrast
from crefjax.spectral.curves import (
    FscCurve,
    count_shell_voxels,
    fsc_from_products,
    has_no_signal,
    shell_products,
    solvent_level,
)

_SCALE, _LEVEL = 1.25, 0.2  # ratio of the deviations, and offset over the deviation, of halves on one scale
_OPPOSITE = -0.3  # FSC at low frequencies of a half-map of the other sign
_SAME, _HALF_AND_FULL, _FLAT = 0.99, (0.66, 0.75), 0.05  # FSC where noise is all there is
_MOSTLY_SIGNAL = 0.85  # FSC at low frequencies of a half-map and a full map of any use
_FILTERED, _END = 1e-3, 0.75  # what is left of the noise's power beyond a low-pass; the last one, over Nyquist
_CONSTANT = 0.1  # of the inscribed sphere
_IN_COMMON, _FEWEST = 0.5, 3  # FSC above which a shell is mostly signal, and how many tell a scale
_LISTED = 3  # hot voxels that are named
_HOT = 30.0  # deviations of the voxel
_FAR = 8.0  # times what all but one of a hundred voxels are below: where most of a map is masked, deviations are small
_ALONE = 0.2  # of the voxel: what the mean of its neighbours has at most; one of them may be as hot
_MOST = 64  # of a map that is sound but for these; where more stand out, they are what the map shows
_SAMPLED = 64  # sections


@dataclass(frozen=True)
class Finding:
    """A problem that was found.

    Attributes:
        kind: `same_noise`, `orientation`, `shift`, `scale`, `no_signal`, `filtered`, `masked`, `fall_off`, `contrast`
            or `hot_voxel`.
        serious: whether the two are not a pair, so that nothing computed from them would be right.
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
        halves: the half-maps as they are to be used: hot voxels mended, and half-map 2 on the scale of half-map 1; the
            arrays that were given where nothing of that was wrong.
        curve: the FSC of these, under the mask.
        region: the mask, given or made.
        products: `shell_products` of these halves, less their solvent levels, under the mask.
    """

    findings: tuple[Finding, ...]
    halves: tuple[np.ndarray, np.ndarray]
    curve: FscCurve
    region: MeasurementMask
    products: np.ndarray

    @property
    def serious(self) -> bool:
        """Whether any finding is."""
        return any(one.serious for one in self.findings)

    def told_resolution(self, *, mask_given: bool) -> str:
        """Where the FSC of the half-maps falls below 0.143, and within what, in words."""
        region = "the mask" if mask_given else "the whole box" if self.region.array is None else "a mask made from them"
        resolution = self.curve.resolution(0.143)
        where = f"falls below 0.143 at {resolution.angstrom:.2f} Å" if resolution.crossed else "never falls below 0.143"
        return f"FSC of the half-maps {where}, within {region}"


def check_pair(
    half_map_1: np.ndarray,
    half_map_2: np.ndarray,
    voxel_size: float,
    mask: np.ndarray | None = None,
    *,
    fall_off: bool = True,
) -> PairCheck:
    """Look for all that can be wrong with a pair.

    Args:
        half_map_1: `(z, y, x)`, float32, finite.
        half_map_2: the same shape.
        voxel_size: Å.
        mask: the same shape, 0 to 1; None to have one made.
        fall_off: whether to look for sharpening and blurring too, as `find_grid` does for itself.
    """
    hot = [find_hot_voxels(half) for half in (half_map_1, half_map_2)]
    first, second = (mended(half, places) for half, places in zip((half_map_1, half_map_2), hot, strict=True))
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
    under_mask = _products(first, second, region.array)
    curve = FscCurve(first.shape, voxel_size, fsc_from_products(under_mask))
    if _nothing_in_common(curve) and not any(one.serious for one in findings):
        text = "the half-maps hardly have anything in common: check that they are of one refinement"
        findings.append(Finding("no_signal", False, text))
    findings += _filtered(products, ratio, max(first.shape) * voxel_size)
    full = (first + second) / 2
    findings += _masked(full)
    findings += [
        Finding("contrast", False, text.removeprefix("warning: ")) for text in inverted_contrast(full, voxel_size)
    ]
    if fall_off and not any(one.serious or one.kind in ("filtered", "no_signal") for one in findings):
        grid = find_grid([first, second], voxel_size, region.array, voxels=VOXELS, keep=True, products=under_mask)
        findings += [Finding("fall_off", False, note, {"b_factor": grid.blur}) for note in grid.notes if grid.blur]
    for number, (half, places) in enumerate(zip((half_map_1, half_map_2), hot, strict=True), 1):
        findings += hot_findings(half, places, f"half-map {number}")
    findings.sort(key=lambda one: not one.serious)
    return PairCheck(tuple(findings), (first, second), curve, region, under_mask)


def _nothing_in_common(curve):
    """Not in the first shells taken together either: in a small box one of them may be low by chance."""
    low = slice(1, max(4, len(curve.fsc) // 10))
    together = np.average(curve.fsc[low], weights=count_shell_voxels(curve.box)[low])
    return has_no_signal(curve.fsc) and together < THRESHOLD


def _products(first, second, region):
    return shell_products([first, second], region, levels=[solvent_level(half, region) for half in (first, second)])


def _curve(first, second, voxel_size, region):
    return FscCurve(first.shape, voxel_size, fsc_from_products(_products(first, second, region)))


def _moments(array):
    mean = float(array.mean(dtype=np.float64))
    return mean, float(np.sqrt(np.mean([np.mean(np.square(plane - mean, dtype=np.float64)) for plane in array])))


def _scale_between(first, second, products):
    """Half-map 2 as a multiple of half-map 1 and an offset, by the shells that are mostly signal, else by all."""
    (mean_1, deviation_1), (mean_2, deviation_2) = _moments(first), _moments(second)
    fsc = fsc_from_products(products)
    sign = -1 if np.median(fsc[1 : max(4, len(fsc) // 10)]) < _OPPOSITE else 1
    ratio = deviation_2 / deviation_1
    shared = np.flatnonzero(sign * fsc[1:] > _IN_COMMON) + 1
    if len(shared) >= _FEWEST:
        ratio = float(np.sqrt(products[shared, 1, 1].sum() / products[shared, 0, 0].sum()))
    return sign * ratio, mean_2 - sign * ratio * mean_1


def _scale(first, ratio, offset):
    mean, deviation = _moments(first)
    if 1 / _SCALE <= ratio <= _SCALE and abs(offset + (ratio - 1) * mean) <= _LEVEL * deviation:
        return
    text = f"half-map 2 is not on the scale of half-map 1 but about {ratio:.3g} times as large"
    text += f", {'plus' if offset >= 0 else 'minus'} {abs(offset):.3g}; it is rescaled to match"
    yield Finding("scale", False, text, {"ratio": ratio, "offset": offset})


def _same_noise(products):
    """At high frequencies there is noise alone, of which two halves share nothing."""
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
    """A level FSC may be that of a flat signal: with a full map it rises to 1, or the noise has half the power."""
    ratio = float(np.median(products[last, 1, 1] / products[last, 0, 0]))
    return np.median(np.abs(fsc[1 : max(4, len(fsc) // 4)])) > _MOSTLY_SIGNAL or 1.8 < max(ratio, 1 / ratio) < 2.2


def _place(first, second, voxel_size, region):
    """Whether half-map 2 is turned, mirrored or shifted."""
    turned, way = find_orientation(first, second, region)
    voxels = find_shift(first, turned, region)
    if not way and not any(voxels):
        return
    right = np.roll(turned, [-one for one in voxels], (0, 1, 2))
    region = auto_mask(first, right, voxel_size).array if region is None else region
    before, after = (_curve(first, one, voxel_size, region).resolution(0.143).angstrom for one in (second, right))
    shift = [one * voxel_size for one in voxels[::-1]]
    what = [way] if way else []
    if any(shift):
        what.append("shifted by " + ", ".join(f"{one:.3g}" for one in shift) + " Å along x, y, z")
    text = f"half-map 2 is {' and '.join(what)} against half-map 1: FSC-0.143 at "
    text += f"{before:.3g} Å as it is, {after:.3g} Å with that undone; give the two half-maps of one refinement"
    numbers = {"shift": shift, "orientation": way, "resolution": before, "resolution_when_undone": after}
    yield Finding("orientation" if way else "shift", True, text, numbers)


def _filtered(products, ratio, length):
    """The noise of half-maps goes on to Nyquist; a low-pass ends it, within a few shells."""
    power = products[:, 0, 0] + products[:, 1, 1] / ratio**2 - 2 * products[:, 0, 1] / ratio
    for end in range(4, int(_END * len(power))):
        before, beyond = (
            np.median(power[int(low * end) : int(high * end) + 1]) for low, high in ((0.6, 0.9), (1.15, 1.3))
        )
        if beyond < _FILTERED * before:
            angstrom = length / end
            text = (
                f"the half-maps were low-passed at about {angstrom:.2g} Å; give unfiltered ones: nothing can be gained "
            )
            text += "beyond that, and no noise can be measured there"
            yield Finding("filtered", False, text, {"low_pass": angstrom})
            return


def _masked(full):
    """A sphere around a reconstruction is usual; a mask within it takes away the noise that tells what is real."""
    centre = [np.abs(np.arange(side) - (side - 1) / 2) / (side / 2) for side in full.shape]
    values, counts = np.unique(full[:: max(1, full.shape[0] // 64)], return_counts=True)
    level = values[counts.argmax()]
    constant = inside = 0
    for z, plane in zip(centre[0], full, strict=True):
        sphere = z**2 + centre[1][:, None] ** 2 + centre[2] ** 2 < 0.81
        inside += int(sphere.sum())
        constant += int(np.sum(sphere & (plane == level)))
    share = constant / max(inside, 1)
    if share > _CONSTANT:
        text = (
            f"the half-maps were multiplied by a mask: {share:.0%} of the sphere in the box has one value; give them as"
        )
        yield Finding("masked", False, text + " the refinement wrote them", {"share": share})


def hot_findings(array: np.ndarray, places: list[tuple[int, int, int]], what: str) -> list[Finding]:
    """What is said of the hot voxels of a map, none where there are none.

    Args:
        array: `(z, y, x)`.
        places: from `find_hot_voxels`.
        what: the map is, such as `half-map 1`.
    """
    if not places:
        return []
    middle, deviation = robust_moments(array)
    several = len(places) > 1
    told = ", ".join(
        f"{x}, {y}, {z} ({abs(float(array[z, y, x]) - middle) / deviation:.0f} deviations)"
        for z, y, x in places[:_LISTED]
    )
    text = f"{what} has {len(places)} hot voxels" if several else f"{what} has a hot voxel"
    text += f" at x, y, z = {told}{' and so on' if len(places) > _LISTED else ''}, counted from 0; "
    text += ("each" if several else "it") + " is replaced by the mean of its neighbours"
    return [Finding("hot_voxel", False, text, {"map": what, "places": [[x, y, z] for z, y, x in places]})]


def robust_moments(array: np.ndarray) -> tuple[float, float]:
    """Median, and deviation by the median absolute deviation, of evenly chosen sections of a map `(z, y, x)`."""
    sample = array[:: max(1, array.shape[0] // _SAMPLED)]
    middle = float(np.median(sample))
    return middle, 1.4826 * float(np.median(np.abs(sample - np.float32(middle))))


def find_hot_voxels(array: np.ndarray) -> list[tuple[int, int, int]]:
    """Places `(z, y, x)` of the voxels that stand far out of a map, and of their neighbours too; the farthest first.

    Args:
        array: `(z, y, x)`, float32, finite.
    """
    middle, deviation = robust_moments(array)
    if not deviation > 0:
        return []
    sample = np.abs(array[:: max(1, array.shape[0] // _SAMPLED)] - np.float32(middle))
    bound = np.float32(max(_HOT * deviation, _FAR * float(np.percentile(sample, 99))))
    found = []
    for z, plane in enumerate(array):
        far = np.argwhere(np.abs(plane - np.float32(middle)) > bound)
        if len(found) + len(far) > 27 * _MOST:
            return []
        found += [(z, int(y), int(x)) for y, x in far]
    alone = [place for place in found if _is_alone(array, place, middle)]
    if len(alone) > _MOST:
        return []
    return sorted(alone, key=lambda place: -abs(float(array[place]) - middle))


def _neighbourhood(array, place):
    """The voxel and the 26 around it, those of the other side of the box at its border."""
    return array[np.ix_(*(np.arange(at - 1, at + 2) % side for at, side in zip(place, array.shape, strict=True)))]


def _is_alone(array, place, middle):
    near = _neighbourhood(array, place)
    around = (float(near.sum(dtype=np.float64)) - float(array[place])) / (near.size - 1) - middle
    return abs(around) <= _ALONE * abs(float(array[place]) - middle)


def mended(array: np.ndarray, places: list[tuple[int, int, int]]) -> np.ndarray:
    """A map in which hot voxels have the mean of those neighbours that are not hot; the same array where none is.

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
        sound = ~_neighbourhood(hot, place)
        out[place] = _neighbourhood(array, place)[sound].mean(dtype=np.float64) if sound.any() else np.median(array)
    return out


@dataclass(frozen=True)
class Usable:
    """Two half-maps, or one full map.

    Attributes:
        pair: as they are to be used; the maps that were given where nothing had to be changed.
        check: what was found of two half-maps; None for one map.
        notes: one line for each thing that the user should know.
    """

    pair: tuple[Map, ...]
    check: PairCheck | None
    notes: tuple[str, ...]


def usable(
    pair: tuple[Map, ...],
    mask: np.ndarray | None = None,
    *,
    insist: bool | None = False,
    fall_off: bool = False,
    without: Sequence[str] = (),
) -> Usable:
    """Check half-maps before work, and mend what can be mended.

    Args:
        pair: two half-maps on one grid, or one full map.
        mask: `(z, y, x)`, 0 to 1, to measure within; None to have one made.
        insist: whether to go on where they are no pair; None where the user has no way to say so.
        fall_off: see `check_pair`.
        without: kinds of findings that the caller tells by itself.

    Raises:
        UserError: they are no pair, and the user does not insist.
    """
    if len(pair) == 1:
        places = find_hot_voxels(pair[0].array)
        if not places:
            return Usable(pair, None, ())
        notes = tuple(one.text for one in hot_findings(pair[0].array, places, "the map"))
        return Usable((pair[0].replace_array(mended(pair[0].array, places)),), None, notes)
    check = check_pair(*(one.array for one in pair), pair[0].voxel_size, mask, fall_off=fall_off)
    if check.serious and not insist:
        names = [str(one.path or f"half-map {number}") for number, one in enumerate(pair, 1)]
        text = "; ".join(one.text for one in check.findings if one.serious)
        raise path_error(" and ".join(names), text + ("" if insist is None else ", or `insist` on these"))
    maps = (
        one if array is one.array else one.replace_array(array) for one, array in zip(pair, check.halves, strict=True)
    )
    return Usable(tuple(maps), check, tuple(one.text for one in check.findings if one.kind not in without))
