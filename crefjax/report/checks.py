"""Whether the maps of a report are what they are given for: denoised from these half-maps, in place, in order."""

import numpy as np
import scipy.fft

from crefjax.spectral.curves import solvent_level
from crefjax.spectral.shells import box_shells, shell_voxels

# Deviations of the correlation under chance that a shift has to beat no shift by: it is the best of very many places.
_DEVIATIONS = 7.0
# Share of what a true shift would gain over no shift; less is a shift by a part of a voxel, or a filter's doing.
_GAIN = 0.5


def shift_between(
    before: np.ndarray, denoised: np.ndarray, mask: np.ndarray, voxel_size: float, *, independent: np.ndarray
) -> tuple[float, float, float]:
    """How far the content of a denoised map lies from that of the map before.

    Phases are correlated, voxels of the given shells alike, so that the peak is sharp: its height is the mean of
    `cos(phase difference)`, whose deviation under chance is one over the root of the independent numbers. A shift by r
    that is none would have, at 0, a height lower by the factor `b(r)`, the mean of `cos(2π k r)` over the shells. It is
    told where the peak beats the height at 0 by half of that and by several deviations of the difference.

    Args:
        before: `(z, y, x)`.
        denoised: the same shape; its sign does not matter.
        mask: the same shape, 0 to 1.
        voxel_size: Å.
        independent: `(shells,)`, independent numbers in the shells to look at, 0 in others.

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
    # What is far below the largest is rounding, not a phase.
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
    deviation = np.sqrt(2 * max(lower, 0.0) / np.sum(independent[chosen]))
    if best - at_0 <= max(_GAIN * lower * best, _DEVIATIONS * deviation):
        return (0.0, 0.0, 0.0)
    return tuple(float(v) * voxel_size + 0.0 for v in voxels[::-1])


def _spectrum(one, mask):
    """Of a map relative to its solvent level, its largest value made 1 so that products stay in float32's range."""
    centred = one - np.float32(solvent_level(one, mask))
    largest = float(np.max(np.abs(centred)))
    centred /= np.float32(largest if largest > 0 else 1)
    if mask is not None:
        centred *= mask
    return scipy.fft.rfftn(centred, workers=-1)


# Noise that denoised half-maps differ by, as a share of the half-maps' own noise, below which they are one map.
_SAME = 1e-6
_SIGMAS = 4.0
# One map times a factor: correlation within the mask, and FSC, which noise would spoil, in nearly all shells.
_EQUAL, _EQUAL_FSC, _NEARLY_ALL = 0.9999, 0.99, 0.95
# Half-maps agree from this FSC on; in so many such shells at least, a denoised map has nothing to do with them if its
# FSC with them is below the next on average, and below the last in each.
_AGREE, _SHELLS, _UNRELATED, _FITS = 0.5, 3, 0.35, 0.7
# Independent numbers that a statement about all maps rests on at least.
_FEWEST = 50
_BEFORE = {"map": "the full map", "half-map 1": "half-map 1", "half-map 2": "half-map 2"}


def factors(measured) -> dict[str, tuple[list[float], list[float]]]:
    """By a denoised map's name the factors with which `measured.masked` gives the map before, and itself."""
    found = {"map": ([0.5, 0.5], [0, 0, 1])}
    if measured.masked.matrix.shape[1] == 5:
        found |= {"half-map 1": ([1], [0, 0, 0, 1]), "half-map 2": ([0, 1], [0, 0, 0, 0, 1])}
    return found


def signal_shells(curve) -> np.ndarray:
    """Shells from 1 up to the resolution at FSC-0.143 of the half-maps' `FscCurve`."""
    length = max(curve.box) * curve.voxel_size
    last = int(length / curve.resolution(0.143).angstrom)
    return np.arange(1, max(min(last + 1, len(curve.fsc) - 1), 2))


def not_denoised(measured):
    """A denoised map is one of the noisy ones, but for a factor: FSC with it is 1 where there is noise alone too."""
    m = measured.masked
    inner = slice(1, len(m.voxels) - 1)
    if not _enough(measured, inner):
        return None
    noisy = {"half-map 1": [1], "half-map 2": [0, 1], "full map": [0.5, 0.5]}
    found = [
        (what, name)
        for what, (_, denoised) in factors(measured).items()
        for name, one in noisy.items()
        if _is_same(m, one, denoised, inner)
    ]
    return " ".join(
        f"The denoised {what} equals the noisy {name}, but for a factor at most: nothing was denoised, or the wrong "
        "file was given."
        for what, name in found
    )


def _is_same(m, first, second, inner):
    count = m.matrix.shape[1]
    a, b = (np.pad(np.asarray(one, np.float64), (0, count - len(one))) for one in (first, second))
    aa, ab, bb = ((m.matrix[inner] @ p @ q) for p, q in ((a, a), (a, b), (b, b)))
    there = aa > 0
    if not np.any(there) or not np.sum(m.voxels[inner] * bb) > 0:
        return False
    voxels = m.voxels[inner] / np.max(m.voxels)
    total = np.sum(voxels * ab) / np.sqrt(np.sum(voxels * aa)) / np.sqrt(np.sum(voxels * bb))
    each = ab > _EQUAL_FSC * np.sqrt(aa) * np.sqrt(np.maximum(bb, 0))
    return total > _EQUAL and np.mean(each[there]) >= _NEARLY_ALL


def unrelated(measured):
    """Where the half-maps agree, the denoised map agrees with neither of them."""
    shells = _where_told(measured)
    curves = _curves(measured)
    # One good shell suffices to fit: a map may be cut off beyond.
    agree = {name: float(np.mean(one[shells])) for name, one in curves.items() if not any(measured.shifts[name])}
    names = [
        name
        for name, mean in agree.items()
        if abs(mean) < _UNRELATED and np.max(np.abs(curves[name][shells]), initial=0) < _FITS
    ]
    if not names or len(shells) < _SHELLS or not _enough(measured, shells):
        return None
    first, last = 1 / measured.curve.frequency[shells[[0, -1]]]
    return (
        f"The denoised {_listed(names)} {_verb(names, 'does', 'do')} not fit these half-maps: from {first:.3g} to "
        f"{last:.3g} Å, where the half-maps agree (FSC {np.mean(measured.curve.fsc[shells]):.2g}), the "
        f"FSC with {_of(names)} is {agree[names[0]]:.2f}. It may be of another specimen, or turned, or empty."
    )


def inverted(measured):
    """Opposite contrast."""
    names = [name for name, value in agreement(measured).items() if value <= -_UNRELATED]
    if not names or not _enough(measured, _where_told(measured)):
        return None
    return (
        f"The denoised {_listed(names)} {_verb(names, 'has', 'have')} the opposite contrast of {_of(names)} "
        f"(their FSC is negative). Invert {_verb(names, 'it', 'them')}, or find out why."
    )


def _enough(measured, shells):
    return np.sum(measured.masked.dof[shells]) >= _FEWEST


def _listed(names):
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _verb(names, one, several):
    return one if len(names) == 1 else several


def _of(names):
    return "the full map" if names == ["map"] else "the half-maps"


def agreement(measured) -> dict[str, float]:
    """By a denoised map's name its mean FSC with the map before, where the half-maps agree; see `_where_told`."""
    shells = _where_told(measured)
    return {name: float(np.mean(one[shells])) for name, one in _curves(measured).items()} if len(shells) else {}


def _curves(measured):
    """FSC of denoised and full map, and of each denoised half-map and the other half-map, whose noise is not in it."""
    m = measured.masked
    found = {"map": measured.with_full}
    if m.matrix.shape[1] == 5:
        for name, first, second in (("half-map 1", 1, 3), ("half-map 2", 0, 4)):
            found[name] = m.fsc(first, second)
    return found


def _where_told(measured):
    """The coarse half of the shells in which the half-maps agree, from beyond the mask's own shape if three are left.

    A shape shows up to about twice the box over the mask's diameter, here that of a ball of its volume.
    """
    shells = signal_shells(measured.curve)
    agreeing = shells[measured.curve.fsc[shells] > _AGREE]
    coarse = agreeing[: -(-len(agreeing) // 2)]
    beyond = coarse[coarse > 2 / np.cbrt(max(measured.mask_power, 1e-6))]
    return beyond if len(beyond) >= _SHELLS else coarse


def shifted(measured):
    """Content that lies elsewhere."""
    moved = {name: shift for name, shift in measured.shifts.items() if any(shift)}
    if not moved:
        return None
    parts = [
        f"that of the denoised {_listed([name for name, one in moved.items() if one == shift])} lies "
        f"({', '.join(f'{one:.4g}' for one in shift)}) Å in (x, y, z) from that of "
        f"{next(_BEFORE[name] for name, one in moved.items() if one == shift)}"
        for shift in dict.fromkeys(moved.values())
    ]
    return (
        f"Density was shifted, or an origin was lost: {', and '.join(parts)}, though the headers agree. Do not overlay "
        "them before that is put right."
    )


def swapped(measured):
    """The noise of a half-map comes through in its own denoised version, not in the other."""
    if measured.masked.matrix.shape[1] < 5:
        return None
    m = measured.masked
    # An inverted output carries the negative of its half-map's noise.
    signs = [np.sign(np.sum((m.voxels * m.of(first, second))[1:-1])) or 1.0 for first, second in ((1, 3), (0, 4))]
    own = (signs[0] * m.of(0, 3) + signs[1] * m.of(1, 4)) / 2
    other = (signs[1] * m.of(0, 4) + signs[0] * m.of(1, 3)) / 2
    # Correlations, so that no shell outweighs the others; under chance their scatter is that of independent numbers.
    size = np.sqrt((m.of(0, 0) + m.of(1, 1)) * (m.of(3, 3) + m.of(4, 4))) / 2
    inner = slice(1, len(size) - 1)
    usable = size[inner] > 0
    numbers = m.dof[inner][usable]
    mean = np.sum(numbers * ((own - other)[inner][usable] / size[inner][usable]))
    if np.sum(numbers) >= _FEWEST and mean < -_SIGMAS * np.sqrt(2 * np.sum(numbers)):
        return (
            "The denoised half-maps seem to be swapped: each carries the noise of the other half-map. Every number "
            "about bias and noise below is wrong until they are given in the order of the half-maps."
        )
    return None


def one_map(measured):
    """The same map twice in place of two."""
    v = measured.variances
    if v is None:
        return None
    inner = slice(1, len(v.noise.value) - 1)
    noise, residual = np.nansum(v.noise.value[inner]), np.nansum(v.residual_noise.value[inner])
    if noise > 0 and residual < _SAME * noise:
        return (
            "The denoised half-maps are one and the same map. Bias and residual noise can be told only from half-maps "
            "that were denoised each for itself."
        )
    return None
