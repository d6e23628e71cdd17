"""What is wrong with two half-maps as a pair, told before any work is done with them.

A pair is two reconstructions of one specimen in one place and orientation, on one scale, with independent noise that
nobody has filtered or masked away. What a refinement, a copy or a conversion did to one of them is found here by what
the two have in common.
"""

from dataclasses import dataclass, field

import numpy as np

from crefjax.data.grid import VOXELS, find_grid
from crefjax.data.masks import make_mask
from crefjax.errors import UserError
from crefjax.inference.pair_place import find_orientation, find_shift
from crefjax.inference.regions import hardly_correlate, inverted_contrast
from crefjax.spectral.fsc import FscCurve, fsc_curve
from crefjax.spectral.host import fsc_of_products, shell_products

_SCALE, _LEVEL = 1.25, 0.2  # ratio of the deviations, and offset over the deviation, of halves on one scale
_OPPOSITE = -0.3  # FSC at low frequencies of a half-map of the other sign
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
    products = shell_products([half_map_1, half_map_2])
    ratio, offset = _scale_between(half_map_1, half_map_2, products)
    findings = [*_scale(half_map_1, ratio, offset)]
    second = (half_map_2 - np.float32(offset)) / np.float32(ratio)
    if same := _same_noise(products):
        findings.append(same)
    else:
        findings += _place(half_map_1, second, voxel_size, mask)
    if mask is None:
        mask = _mask(half_map_1, second, voxel_size)
    curve = fsc_curve(half_map_1, second, voxel_size, mask, levelled=True)
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


def _scale_between(first, second, products):
    """Half-map 2 as a multiple of half-map 1 and an offset: signal and noise are alike in both, but for chance."""
    (mean_1, deviation_1), (mean_2, deviation_2) = _moments(first), _moments(second)
    fsc = fsc_of_products(products)
    sign = -1 if np.median(fsc[1 : max(4, len(fsc) // 10)]) < _OPPOSITE else 1
    ratio = sign * deviation_2 / deviation_1
    return ratio, mean_2 - ratio * mean_1


def _scale(first, ratio, offset):
    mean, deviation = _moments(first)
    if 1 / _SCALE <= ratio <= _SCALE and abs(offset + (ratio - 1) * mean) <= _LEVEL * deviation:
        return
    text = f"half-map 2 is not on the scale of half-map 1: it is about {ratio:.3g} times it"
    text += f" {'plus' if offset >= 0 else 'minus'} {abs(offset):.3g}; what follows is measured on one scale"
    yield Finding("scale", False, text, {"ratio": ratio, "offset": offset})


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
    turned, way, certain = find_orientation(first, second, region)
    voxels, sure = find_shift(first, turned, region)
    if not way and not any(voxels):
        return
    right = np.roll(turned, [-one for one in voxels], (0, 1, 2))
    region = mask if mask is not None else _mask(first, right, voxel_size)
    before, after = (
        fsc_curve(first, one, voxel_size, region, levelled=True).resolution(0.143).angstrom for one in (second, right)
    )
    shift = [one * voxel_size for one in voxels[::-1]]
    what = [way] if way else []
    if any(shift):
        what.append("shifted by " + ", ".join(f"{one:.3g}" for one in shift) + " Å along x, y, z")
    serious = (certain or not way) and (sure or not any(shift))
    text = f"half-map 2 {'is' if serious else 'may be'} {' and '.join(what)} against half-map 1: FSC-0.143 at "
    text += f"{before:.3g} Å as it is, {after:.3g} Å when that is undone; give the two half-maps of one refinement"
    numbers = {"shift": shift, "orientation": way, "resolution": before, "resolution_when_undone": after}
    yield Finding("orientation" if way else "shift", serious, text, numbers)


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
