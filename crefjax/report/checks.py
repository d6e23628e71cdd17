"""Tests for the warnings that a denoised map is not what it is said to be: denoised, of these half-maps, in place.

They take `crefjax.report.measure.Measurements` and return the text of a warning, or nothing; `crefjax.report.warnings`
lists them among all tests.
"""

import numpy as np

# Noise by which denoised half-maps differ, as a share of the half-maps' own noise, below which they are one map.
_SAME_NOISE = 1e-6
_SWAPPED_SIGMAS = 4.0
# One map times a factor: correlation within the mask, and FSC, which noise would spoil, in nearly all shells.
_EQUAL, _EQUAL_FSC, _NEARLY_ALL = 0.9999, 0.99, 0.95
# Half-maps agree from this FSC on; in at least _FEWEST_SHELLS such shells, a denoised map is unrelated to them if its
# FSC with them is below _UNRELATED on average, and below _FITS in each.
_AGREE, _FEWEST_SHELLS, _UNRELATED, _FITS = 0.5, 3, 0.35, 0.7
# Independent numbers that a statement about a whole map rests on at least.
_FEWEST_NUMBERS = 50


def not_denoised(measured):
    """Look for a noisy map given as a denoised one: its FSC with that is 1 even where there is noise alone."""
    m = measured.masked
    inner = slice(1, len(m.voxels) - 1)
    if not _enough(measured, inner):
        return None
    denoised_maps = {"map": [0, 0, 1]}
    if m.matrix.shape[1] == 5:
        denoised_maps |= {"half-map 1": [0, 0, 0, 1], "half-map 2": [0, 0, 0, 0, 1]}
    noisy_maps = {"half-map 1": [1], "half-map 2": [0, 1], "full map": [0.5, 0.5]}
    return " ".join(
        f"The denoised {denoised} equals the noisy {noisy}, but for a factor at most: nothing was denoised, or the "
        "wrong file was given."
        for denoised, denoised_factors in denoised_maps.items()
        for noisy, noisy_factors in noisy_maps.items()
        if _is_same(m, noisy_factors, denoised_factors, inner)
    )


def _is_same(m, first, second, inner):
    """Compare two sums of maps, given by the factor of each map."""
    count = m.matrix.shape[1]
    a, b = (np.pad(np.asarray(factors, np.float64), (0, count - len(factors))) for factors in (first, second))
    aa, ab, bb = ((m.matrix[inner] @ p @ q) for p, q in ((a, a), (a, b), (b, b)))
    nonzero = aa > 0
    if not np.any(nonzero) or not np.sum(m.voxels[inner] * bb) > 0:
        return False
    voxels = m.voxels[inner] / np.max(m.voxels)
    total = np.sum(voxels * ab) / np.sqrt(np.sum(voxels * aa)) / np.sqrt(np.sum(voxels * bb))
    equal = ab > _EQUAL_FSC * np.sqrt(aa) * np.sqrt(np.maximum(bb, 0))
    return total > _EQUAL and np.mean(equal[nonzero]) >= _NEARLY_ALL


def unrelated(measured):
    """Look for a denoised map that agrees with neither half-map where these agree."""
    shells = _agreeing_shells(measured)
    curves = _curves(measured)
    means = {name: float(np.mean(curve[shells])) for name, curve in curves.items() if not any(measured.shifts[name])}
    # One good shell suffices to fit: a map may be cut off beyond.
    names = [
        name
        for name, mean in means.items()
        if abs(mean) < _UNRELATED and np.max(np.abs(curves[name][shells]), initial=0) < _FITS
    ]
    if not names or len(shells) < _FEWEST_SHELLS or not _enough(measured, shells):
        return None
    first, last = 1 / measured.curve.frequency[shells[[0, -1]]]
    return (
        f"The denoised {_listed(names)} {_verb(names, 'does', 'do')} not fit these half-maps: from {first:.3g} to "
        f"{last:.3g} Å, where the half-maps agree (FSC {np.mean(measured.curve.fsc[shells]):.2g}), the "
        f"FSC with {_counterpart(names)} is {means[names[0]]:.2f}. It may be of another specimen, or turned, or empty."
    )


def inverted(measured):
    """Look for opposite contrast."""
    shells = _agreeing_shells(measured)
    if not len(shells) or not _enough(measured, shells):
        return None
    names = [name for name, curve in _curves(measured).items() if np.mean(curve[shells]) <= -_UNRELATED]
    if not names:
        return None
    return (
        f"The denoised {_listed(names)} {_verb(names, 'has', 'have')} the opposite contrast of {_counterpart(names)} "
        f"(their FSC is negative). Invert {_verb(names, 'it', 'them')}, or find out why."
    )


def _enough(measured, shells):
    return np.sum(measured.masked.dof[shells]) >= _FEWEST_NUMBERS


def _listed(names):
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _verb(names, singular, plural):
    return singular if len(names) == 1 else plural


def _counterpart(names):
    return "the full map" if names == ["map"] else "the half-maps"


def _curves(measured):
    """Return the FSC of denoised and full map, and of each denoised half-map and the other half-map.

    A denoised half-map shares no noise with the other half-map.
    """
    curves = {"map": measured.fsc_to_full}
    if measured.masked.matrix.shape[1] == 5:
        curves |= {"half-map 1": measured.masked.fsc(1, 3), "half-map 2": measured.masked.fsc(0, 4)}
    return curves


def _agreeing_shells(measured):
    """Return the coarse half of the shells in which the half-maps agree, without those of the mask's own shape.

    A shape shows up to about twice the box over the mask's diameter, here that of a ball of its volume. Its shells are
    kept where fewer than three others would be left.
    """
    shells = measured.curve.signal_shells()
    agreeing = shells[measured.curve.fsc[shells] > _AGREE]
    coarse = agreeing[: -(-len(agreeing) // 2)]
    beyond = coarse[coarse > 2 / np.cbrt(max(measured.mask_power, 1e-6))]
    return beyond if len(beyond) >= _FEWEST_SHELLS else coarse


def shifted(measured):
    """Look for content that is shifted."""
    shifts = {name: shift for name, shift in measured.shifts.items() if any(shift)}
    if not shifts:
        return None
    parts = []
    for shift in dict.fromkeys(shifts.values()):
        names = [name for name in shifts if shifts[name] == shift]
        parts.append(
            f"that of the denoised {_listed(names)} lies ({', '.join(f'{component:.4g}' for component in shift)}) Å in "
            f"(x, y, z) from that of {'the full map' if names[0] == 'map' else names[0]}"
        )
    return (
        f"Density was shifted, or an origin was lost: {', and '.join(parts)}, though the headers agree. Do not overlay "
        "them before that is put right."
    )


def swapped(measured):
    """Look for the noise of a half-map in the denoised version of the other half-map, not in its own."""
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
    total = np.sum(numbers * ((own - other)[inner][usable] / size[inner][usable]))
    if np.sum(numbers) >= _FEWEST_NUMBERS and total < -_SWAPPED_SIGMAS * np.sqrt(2 * np.sum(numbers)):
        return (
            "The denoised half-maps seem to be swapped: each carries the noise of the other half-map. Every number "
            "about bias and noise below is wrong until they are given in the order of the half-maps."
        )
    return None


def one_map(measured):
    """Look for one map given in place of two different ones."""
    variances = measured.variances
    if variances is None:
        return None
    inner = slice(1, len(variances.noise.value) - 1)
    noise, residual = np.nansum(variances.noise.value[inner]), np.nansum(variances.residual_noise.value[inner])
    if noise > 0 and residual < _SAME_NOISE * noise:
        return (
            "The denoised half-maps are one and the same map. Bias and residual noise can be measured only with "
            "half-maps that were denoised independently of each other."
        )
    return None
