"""What is wrong with two half-maps as a pair, told before any work is done with them.

A pair is two reconstructions of one specimen in one place and orientation, on one scale, with independent noise that
nobody has filtered or masked away. What a refinement, a copy or a conversion did to one of them is found here by what
the two have in common.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.fft

from crefjax.data.grid import VOXELS, find_grid
from crefjax.data.masks import make_mask
from crefjax.errors import UserError
from crefjax.inference.regions import hardly_correlate, inverted_contrast
from crefjax.spectral.fsc import FscCurve, fsc_curve
from crefjax.spectral.host import fsc_of_products, shell_products, solvent_level
from crefjax.spectral.resample import fourier_resample
from crefjax.spectral.shells import box_shells, shell_voxels

_COARSE = 48  # voxels of the longest side, on which orientations are tried
# What must speak for another orientation: in all, more than for none, and as many times as much. Half-maps of noise
# come to 5, and to 3.5 more than for none (80 pairs of 32³). It is certain where it is more by ten.
_LEAST, _BETTER, _RATIO, _CERTAIN = 8.0, 4.0, 1.3, 10.0
_SCALE, _LEVEL = 1.25, 0.2  # ratio of the deviations, and offset over the deviation, of halves on one scale
_SAME, _HALF_AND_FULL, _FLAT = 0.99, (0.66, 0.75), 0.05  # FSC where noise is all there is
_FILTERED, _END = 1e-3, 0.75  # what is left of the noise's power beyond a low-pass; the last one, over Nyquist
_CONSTANT = 0.1  # of the inscribed sphere
_HOT, _ALONE = 30.0, 0.2  # deviations of a voxel, and share of it that its neighbours have


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        kind: `same_noise`, `orientation`, `shift`, `scale`, `no_signal`, `filtered`, `masked`, `fall_off`, `contrast`
            or `hot_voxel`.
        serious: whether the two are no pair: nothing that is computed of them would be right.
        text: one line for the user.
        numbers: that the line tells, by name.
    """

    kind: str
    serious: bool
    text: str
    numbers: dict = field(default_factory=dict)


@dataclass(frozen=True)
class PairCheck:
    """What was found of a pair.

    Attributes:
        findings: the serious ones first.
        curve: the FSC of the half-maps as they are, under the mask.
        mask: `(z, y, x)`, given or made; None where none could be made.
    """

    findings: tuple[Finding, ...]
    curve: FscCurve
    mask: np.ndarray | None

    @property
    def serious(self) -> bool:
        """Whether any finding is."""
        return any(one.serious for one in self.findings)


def check_pair(
    half_map_1: np.ndarray, half_map_2: np.ndarray, voxel_size: float, mask: np.ndarray | None = None
) -> PairCheck:
    """Look for all that can be wrong with a pair.

    Args:
        half_map_1: `(z, y, x)`, float32, finite.
        half_map_2: the same shape.
        voxel_size: Å.
        mask: the same shape, 0 to 1; None to have one made.
    """
    findings = [*_scale(half_map_1, half_map_2)]
    second = _on_scale(half_map_1, half_map_2)
    products = shell_products([half_map_1, second])
    if same := _same_noise(products):
        findings.append(same)
    else:
        findings += _place(half_map_1, second, voxel_size, mask)
    if mask is None:
        mask = _mask(half_map_1, second, voxel_size)
    curve = fsc_curve(half_map_1, second, voxel_size, mask)
    if hardly_correlate(curve.fsc) and not any(one.serious for one in findings):
        text = "the half-maps hardly have anything in common: check that they are of one refinement"
        findings.append(Finding("no_signal", False, text))
    findings += _filtered(half_map_1, second, voxel_size)
    full = (half_map_1 + second) / 2
    findings += _masked(full)
    findings += [
        Finding("contrast", False, text.removeprefix("warning: ")) for text in inverted_contrast(full, voxel_size)
    ]
    if not any(one.serious or one.kind in ("filtered", "no_signal") for one in findings):
        grid = find_grid([half_map_1, second], voxel_size, mask, voxels=VOXELS, keep=True)
        findings += [Finding("fall_off", False, note, {"b_factor": grid.blur}) for note in grid.notes if grid.blur]
    for number, half in enumerate((half_map_1, half_map_2), 1):
        findings += _hot(half, number)
    return PairCheck(tuple(sorted(findings, key=lambda one: not one.serious)), curve, mask)


def _moments(array):
    mean = float(array.mean(dtype=np.float64))
    return mean, float(np.sqrt(np.mean([np.mean(np.square(plane - mean, dtype=np.float64)) for plane in array])))


def _scale(first, second):
    """Both have the same signal and as much noise, so the same mean and deviation but for chance."""
    (mean_1, deviation_1), (mean_2, deviation_2) = _moments(first), _moments(second)
    ratio = deviation_2 / deviation_1
    offset = mean_2 - ratio * mean_1
    if 1 / _SCALE <= ratio <= _SCALE and abs(mean_2 - mean_1) <= _LEVEL * deviation_1:
        return
    text = f"half-map 2 is not on the scale of half-map 1: it is about {ratio:.3g} times it"
    text += f" {'plus' if offset >= 0 else 'minus'} {abs(offset):.3g}; what follows is measured on one scale"
    yield Finding("scale", False, text, {"ratio": ratio, "offset": offset})


def _on_scale(first, second):
    (mean_1, deviation_1), (mean_2, deviation_2) = _moments(first), _moments(second)
    ratio = deviation_1 / deviation_2
    return second * np.float32(ratio) + np.float32(mean_1 - ratio * mean_2)


def _same_noise(products):
    """At high frequencies there is noise alone, of which two halves share nothing."""
    fsc = fsc_of_products(products)
    power = products[:, 0, 0]
    last = np.flatnonzero(power > 1e-10 * power.max())
    last = last[last >= 2 * len(fsc) // 3]
    if len(last) < 3:
        return None
    curve = fsc[last]
    middle, spread = float(np.median(curve)), float(np.ptp(np.percentile(curve, (10, 90))))
    if abs(middle) > _SAME:
        text = "the half-maps have the same noise: it is one half-map twice, or one that has no noise"
    elif _HALF_AND_FULL[0] < abs(middle) < _HALF_AND_FULL[1] and spread < _FLAT:
        text = "the half-maps share half of their noise, as a half-map and the full map do"
    else:
        return None
    text += "; give the two half-maps of one refinement, unfiltered"
    return Finding("same_noise", True, text, {"fsc_at_high_frequencies": middle})


def _place(first, second, voxel_size, mask):
    """Whether half-map 2 is turned, mirrored or shifted."""
    region = mask if mask is not None else _mask(first, second, voxel_size)
    turned, way, certain = _orientation(first, second, region)
    voxels, sure = _shift(first, turned, region)
    if not way and not any(voxels):
        return
    right = np.roll(turned, [-one for one in voxels], (0, 1, 2))
    region = mask if mask is not None else _mask(first, right, voxel_size)
    before, after = (fsc_curve(first, one, voxel_size, region).resolution(0.143).angstrom for one in (second, right))
    shift = [one * voxel_size for one in voxels[::-1]]
    what = [way] if way else []
    if any(shift):
        what.append("shifted by " + ", ".join(f"{one:.3g}" for one in shift) + " Å along x, y, z")
    serious = (certain or not way) and (sure or not any(shift))
    text = f"half-map 2 {'is' if serious else 'may be'} {' and '.join(what)} against half-map 1: FSC-0.143 at "
    text += f"{before:.3g} Å as it is, {after:.3g} Å when that is undone; give the two half-maps of one refinement"
    numbers = {"shift": shift, "orientation": way, "resolution": before, "resolution_when_undone": after}
    yield Finding("orientation" if way else "shift", serious, text, numbers)


def _evidence(one, two, region):
    """What speaks for two maps of one specimen in one place.

    The log-likelihood ratio of two Gaussian maps whose shells correlate by the FSC to two that do not: the sum of
    `-1/2 n log(1 - FSC²)` over shells of `n` independent numbers.
    """
    numbers = np.asarray(shell_voxels(box_shells(one.shape)), np.float64)[1:] / 2
    numbers *= float(np.square(region, dtype=np.float64).mean())
    fsc = np.clip(fsc_of_products(shell_products([one, two], region))[1:], 0, 0.9999)
    return float(-0.5 * np.sum(numbers * np.log1p(-np.square(fsc))))


def _speaks_for(best, same):
    """Whether what speaks for another place or orientation is enough, and whether it is certain."""
    return best >= max(_LEAST, _RATIO * same, same + _BETTER), best - same > _CERTAIN


def _shift(first, second, mask):
    """By how many voxels along z, y, x half-map 2 is shifted, and whether that is certain.

    Phases are correlated over several bands, as nothing says yet where signal ends; the evidence chooses among peaks.
    """
    region = _sphere(first.shape) if mask is None else mask
    one, two = (half - np.float32(solvent_level(half, mask)) for half in (first, second))
    cross = scipy.fft.rfftn(one * region, workers=-1) * np.conj(scipy.fft.rfftn(two, workers=-1))
    size = np.abs(cross)
    cross = np.divide(cross, size, out=np.zeros_like(cross), where=size > 1e-12 * size.max())
    index = np.asarray(box_shells(first.shape).index)
    places = set()
    for part in (1, 2, 4, 8):
        band = (index > 0) & (index <= max(first.shape) / 2 / part)
        peak = np.unravel_index(int(np.argmax(scipy.fft.irfftn(cross * band, s=first.shape, workers=-1))), first.shape)
        places.add(
            tuple(-int(p) if p <= side // 2 else int(side - p) for p, side in zip(peak, first.shape, strict=True))
        )
    places.discard((0, 0, 0))
    if not places:
        return (0, 0, 0), True
    evidence = {place: _evidence(one, np.roll(two, [-each for each in place], (0, 1, 2)), region) for place in places}
    best = max(evidence, key=evidence.get)
    enough, certain = _speaks_for(evidence[best], _evidence(one, two, region))
    return (best, certain) if enough else ((0, 0, 0), True)


def _orientation(first, second, mask):
    """Half-map 2 in the orientation of the cube that fits best, how it was turned in words, and if that is certain."""
    side = max(first.shape)
    shape = tuple(max(8, round(one * min(_COARSE, side) / side)) for one in first.shape)
    one, two = (fourier_resample(half - np.float32(solvent_level(half, mask)), shape) for half in (first, second))
    region = _sphere(shape) if mask is None else np.clip(fourier_resample(mask, shape), 0, 1)
    evidence = {}
    for axes in itertools.permutations(range(3)):
        if any(tuple(box[axis] for axis in axes) != box for box in (shape, second.shape)):
            continue
        for flips in itertools.product((1, -1), repeat=3):
            evidence[axes, flips] = _evidence(one, _turned(two, axes, flips), region)
    same = ((0, 1, 2), (1, 1, 1))
    best = max(evidence, key=evidence.get)
    enough, certain = _speaks_for(evidence[best], evidence[same])
    return (_turned(second, *best), _in_words(*best), certain) if enough else (second, "", True)


def _turned(array, axes, flips):
    return np.ascontiguousarray(array.transpose(axes)[tuple(slice(None, None, step) for step in flips)])


def _sphere(shape):
    """1 in the sphere that fills the box, falling off to 0 outside: no orientation takes anything out of it."""
    lines = np.ix_(*((np.arange(side) - (side - 1) / 2) / (side / 2) for side in shape))
    radius = np.sqrt(sum(line**2 for line in lines))
    return np.clip((1 - radius) / 0.15, 0, 1).astype(np.float32)


def _in_words(axes: Sequence[int], flips: Sequence[int]) -> str:
    names = "zyx"
    parity = np.linalg.det(np.eye(3)[list(axes)]) * np.prod(flips)
    mirrored = [names[axis] for axis, step in enumerate(flips) if step < 0]
    if tuple(axes) == (0, 1, 2):
        text = f"mirrored along {' and '.join(mirrored[::-1])}"
    else:
        text = (
            "of other axes ("
            + ", ".join(
                f"{names[axis]} is its {'-' if flips[axis] < 0 else ''}{names[axes[axis]]}" for axis in (2, 1, 0)
            )
            + ")"
        )
    return text + (", which changes its hand," if parity < 0 else "")


def _mask(first, second, voxel_size):
    try:
        return make_mask(first, second, voxel_size)[0]
    except UserError:
        return None


def _filtered(first, second, voxel_size):
    """The noise of half-maps goes on to Nyquist; a low-pass ends it, within a few shells."""
    power = shell_products([first - second])[:, 0, 0]
    for end in range(4, int(_END * len(power))):
        before, beyond = (
            np.median(power[int(low * end) : int(high * end) + 1]) for low, high in ((0.6, 0.9), (1.15, 1.3))
        )
        if beyond < _FILTERED * before:
            angstrom = max(first.shape) * voxel_size / end
            text = (
                f"the half-maps were low-passed at about {angstrom:.2g} Å; give them unfiltered: beyond, nothing can "
            )
            yield Finding("filtered", False, text + "be gained, and no noise be measured", {"low_pass": angstrom})
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


def _hot(half, number):
    """A voxel that stands far out of everything, and of its neighbours too."""
    sample = half[:: max(1, half.shape[0] // 64)]
    middle = float(np.median(sample))
    deviation = 1.4826 * float(np.median(np.abs(sample - middle)))
    if not deviation > 0:
        return
    place = np.unravel_index(int(np.argmax(np.abs(half - np.float32(middle)))), half.shape)
    value = float(half[place]) - middle
    near = half[np.ix_(*(np.arange(at - 1, at + 2) % side for at, side in zip(place, half.shape, strict=True)))]
    around = (float(near.sum(dtype=np.float64)) - float(half[place])) / 26 - middle
    if abs(value) < _HOT * deviation or abs(around) > _ALONE * abs(value):
        return
    x, y, z = (int(at) for at in place[::-1])
    text = f"half-map {number} has a single voxel of {abs(value) / deviation:.0f} deviations at x, y, z = {x}, {y}, {z}"
    text += " (counted from 0): it is no density; set it to the mean of its neighbours"
    yield Finding("hot_voxel", False, text, {"half_map": number, "place": [x, y, z]})
