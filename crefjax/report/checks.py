"""Checks that the maps of a report are what they are said to be: denoised from these half-maps, in place and in order.

`header_rows` compares the headers of a denoiser's input and output, entry by entry.

Functions of one argument take `crefjax.report.measure.Measurements` and return the text of a warning, or nothing.
"""

from typing import NamedTuple

import numpy as np
import scipy.fft

from crefjax.io.files import open_map_file
from crefjax.io.header import HEADER_BYTES, Header, byte_order
from crefjax.io.maps import Map
from crefjax.spectral.curves import THRESHOLD, solvent_level
from crefjax.spectral.shells import box_shells, shell_voxels

# Standard deviations of the correlation under chance by which a shift must beat no shift: it is the best of very
# many places.
_SHIFT_SIGMAS = 7.0
# Share of what a true shift would gain over no shift; less is a shift by a part of a voxel, or an effect of a filter.
_SHIFT_GAIN = 0.5
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
_MODES = {
    0: "8-bit integers",
    1: "16-bit integers",
    2: "32-bit floats",
    6: "16-bit unsigned integers",
    12: "16-bit floats",
}
# Entries that should differ: the output has other voxels, and a label that says so.
_EXPECTED = ("Data mode", "Minimum, maximum", "Mean, standard deviation", "Labels", "Byte order")


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


def signal_shells(curve) -> np.ndarray:
    """Return the shells from 1 up to the resolution at FSC-0.143 of the half-maps' `FscCurve`."""
    length = max(curve.box) * curve.voxel_size
    last = int(length / curve.resolution(THRESHOLD).angstrom)
    return np.arange(1, max(min(last + 1, len(curve.fsc) - 1), 2))


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
    shells = signal_shells(measured.curve)
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


class HeaderRow(NamedTuple):
    """An entry of the headers of input and output.

    Attributes:
        name: name of the entry.
        before, after: its values in the input and in the output.
        differs: whether they differ.
        expected: whether a difference is expected.
    """

    name: str
    before: str
    after: str
    differs: bool
    expected: bool


def header_rows(before: Map, after: Map) -> list[HeaderRow]:
    """Compare the headers of an input and an output, entry by entry.

    Args:
        before: a map; its header is read from its file if it has one.
        after: the same.
    """
    entries, entries_after = (_entries(_header(map_)) for map_ in (before, after))
    return [
        HeaderRow(name, value, entries_after[name], value != entries_after[name], name in _EXPECTED)
        for name, value in entries.items()
    ]


def _header(map_):
    """Read the header from the file: a map that was written has one label more there."""
    if map_.path is None:
        return map_.header
    with open_map_file(map_.path) as (stream, _):
        raw = stream.read(HEADER_BYTES)
        order = byte_order(raw)
        return Header(raw, stream.read(int(Header(raw, b"", order).fields.nsymbt)), order)


def _entries(header):
    fields = header.fields
    side = dict(zip("zyx", header.shape, strict=True))
    labels = [_text(label) for label in fields.label[: max(int(fields.nlabl), 0)]]
    kind = _text(fields.exttyp)
    return {
        "Size x, y, z (voxels)": _joined(side[axis] for axis in "xyz"),
        "Voxel size x, y, z (Å)": _joined(f"{size:.6g}" for size in header.voxel_sizes),
        "Cell x, y, z (Å)": _joined(f"{float(fields.cella[axis]):.6g}" for axis in "xyz"),
        "Cell angles (°)": _joined(f"{float(fields.cellb[name]):g}" for name in ("alpha", "beta", "gamma")),
        "ORIGIN x, y, z (Å)": _joined(f"{float(fields.origin[axis]):.6g}" for axis in "xyz"),
        "NSTART column, row, section": _joined(int(fields[name]) for name in ("nxstart", "nystart", "nzstart")),
        "First voxel lies at x, y, z (Å)": _joined(f"{value:.6g}" for value in header.origin),
        "Axis order (MAPC, MAPR, MAPS)": _joined(header.axes),
        "Data mode": f"{int(fields.mode)} ({_MODES.get(int(fields.mode), 'unknown')})",
        "Space group (ISPG)": str(int(fields.ispg)),
        "Extended header": f"{len(header.extended)} bytes {kind}".strip() if header.extended else "none",
        "Byte order": "little-endian" if header.byte_order == "<" else "big-endian",
        "Minimum, maximum": _joined(f"{float(fields[name]):.5g}" for name in ("dmin", "dmax")),
        "Mean, standard deviation": _joined(f"{float(fields[name]):.5g}" for name in ("dmean", "rms")),
        "Labels": "\n".join(labels) if labels else "none",
    }


def _joined(values):
    return ", ".join(str(value) for value in values)


def _text(raw):
    return bytes(raw).rstrip(b"\0 ").decode("ascii", "replace")
