"""What is wrong, or worth knowing, in a report: found in the numbers, said in plain words with resolutions in Å."""

import numpy as np
import scipy.fft

# Of the signal's power; what lies outside a mask beyond that is particle that the mask cuts.
_OUTSIDE = 0.1
# A gain within which a map counts as being on the half-maps' scale.
_GAIN = 1.15
# Damped: less of the signal is left than this, its ratio to noise no better than by this factor, though the ratio of
# the whole signal to what noise is left says so by the next.
_KEPT, _GAINED, _SEEMS = 0.85, 1.2, 1.5
# Noise that denoised half-maps differ by, as a share of the half-maps' own noise, below which they are one map.
_SAME = 1e-6
_SIGMAS = 4.0


def warnings_of(measured) -> list[dict]:
    """What makes the map, or this report, less than it seems; the gravest first.

    Args:
        measured: `crefjax.report.account.Measured`.

    Returns:
        dicts of `kind` and `text`.
    """
    checks = [_no_signal, _inverted, _shifted, _swapped, _one_map, _contradicted, _added, _damped, _cut, _never_falls]
    found = []
    for check in checks:
        text = check(measured)
        if text:
            found.append({"kind": check.__name__.lstrip("_"), "text": text})
    return found


def notes_of(measured) -> list[str]:
    """What to know, though nothing is wrong."""
    notes = [
        "Variances are those of the masked maps, per Fourier voxel, divided by the mean squared mask: white noise has "
        "its own variance whatever the mask. The mask blurs every spectrum by its own transform, for all maps alike; "
        "errors count the independent voxels that it leaves in a shell.",
    ]
    if measured.variances is None:
        notes.append(
            "Without denoised half-maps, signal, bias and residual noise of the denoised map cannot be told apart: it "
            "was made of both half-maps, so its noise is in either of them. Denoise each half-map alone, with the "
            "same settings, and give both with --denoised-halves."
        )
        return notes
    gain = measured.variances.gain
    if not 1 / _GAIN < gain < _GAIN:
        notes.append(
            f"The denoised half-maps are not on the half-maps' scale: they were multiplied by {gain:.4g} before bias "
            "and residual noise were computed."
        )
    notes.append(
        "Variances are those of the half-maps and of the denoised half-maps. The full map has half their noise; its "
        "denoised version is a little better than theirs."
    )
    return notes


def shift_between(half_map_1, half_map_2, denoised, mask, voxel_size) -> tuple[float, float, float]:
    """How far the content of the denoised map lies from that of the full map, from the peak of their correlation.

    Args:
        half_map_1: `(z, y, x)`.
        half_map_2: the same shape.
        denoised: the same shape.
        mask: the same shape.
        voxel_size: Å.

    Returns:
        `(x, y, z)` in Å, whole voxels.
    """
    full = half_map_1 + half_map_2
    full -= full.mean()
    full *= mask
    spectrum = scipy.fft.rfftn(full, workers=-1)
    spectrum *= np.conj(scipy.fft.rfftn(denoised - denoised.mean(), workers=-1))
    # Flattened, so that the peak is sharp.
    size = np.abs(spectrum)
    spectrum /= np.sqrt(np.maximum(size, max(1e-20 * float(size.max()), float(np.finfo(size.dtype).tiny))))
    peak = scipy.fft.irfftn(spectrum, s=full.shape, workers=-1, overwrite_x=True)
    place = np.unravel_index(int(np.argmax(np.abs(peak))), peak.shape)
    voxels = [-(p if p <= n // 2 else p - n) for p, n in zip(place, peak.shape, strict=True)]
    return tuple(float(v) * voxel_size + 0.0 for v in voxels[::-1])


def ranges(chosen: np.ndarray, frequency: np.ndarray) -> str:
    """Shells in words: `from 8.2 to 5.1 Å and from 4.0 to 3.8 Å`, the three longest runs.

    Args:
        chosen: `(shells,)`, bool; shell 0 is not looked at.
        frequency: `(shells,)`, 1/Å.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(chosen[1:], np.int8), [0]])))
    runs = sorted(zip(edges[::2] + 1, edges[1::2], strict=True), key=lambda run: run[0] - run[1])[:3]
    words = [
        f"at {1 / frequency[a]:.3g} Å" if a == b else f"from {1 / frequency[a]:.3g} to {1 / frequency[b]:.3g} Å"
        for a, b in sorted(runs)
    ]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _no_signal(measured):
    resolution = measured.curve.resolution(0.143)
    longest = max(measured.curve.box) * measured.curve.voxel_size
    if resolution.crossed and resolution.angstrom > longest / 3:
        return (
            f"The half-maps hardly correlate: their FSC falls below 0.143 at {resolution.angstrom:.3g} Å, a few "
            "shells from the start. There is next to no signal that a denoised map could show; what it shows is made "
            "up of noise."
        )
    return None


def _inverted(measured):
    shells = _signal_shells(measured)
    if len(shells) and np.mean(measured.with_full[shells]) < 0:
        return (
            "The denoised map has the opposite contrast of the full map (their FSC is negative). Invert it, or find "
            "out why."
        )
    return None


def _shifted(measured):
    if not any(measured.shift):
        return None
    x, y, z = measured.shift
    return (
        f"The density of the denoised map lies ({x:.4g}, {y:.4g}, {z:.4g}) Å in (x, y, z) from that of the full map, "
        "though the headers agree. It was shifted, or its origin was lost: do not overlay them before that is put "
        "right."
    )


def _swapped(measured):
    """The noise of a half-map comes through in its own denoised version, not in the other."""
    if measured.masked.matrix.shape[1] < 5:
        return None
    m = measured.masked
    own, other = (m.of(0, 3) + m.of(1, 4)) / 2, (m.of(0, 4) + m.of(1, 3)) / 2
    # Correlations, so that no shell outweighs the others; under chance their scatter is that of independent numbers.
    size = np.sqrt((m.of(0, 0) + m.of(1, 1)) * (m.of(3, 3) + m.of(4, 4))) / 2
    inner = slice(1, len(size) - 1)
    usable = size[inner] > 0
    numbers = m.independent[inner][usable]
    mean = np.sum(numbers * ((own - other)[inner][usable] / size[inner][usable]))
    if mean < -_SIGMAS * np.sqrt(2 * np.sum(numbers)):
        return (
            "The denoised half-maps seem to be swapped: each carries the noise of the other half-map. Every number "
            "about bias and noise below is wrong until they are given in the order of the half-maps."
        )
    return None


def _one_map(measured):
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


def _contradicted(measured):
    v = measured.variances
    if v is None or not np.any(v.contradicted[1:]):
        return None
    return (
        f"The equations contradict themselves {ranges(v.contradicted, measured.curve.frequency)}: a variance comes "
        "out negative by more than its error. There, signal, bias and noise are not independent (half-maps that share "
        "noise, or denoised half-maps that know of each other); nothing is drawn where that is so."
    )


def _added(measured):
    v = measured.variances
    if v is None:
        return None
    ratio = v.signal_to_added
    with np.errstate(invalid="ignore"):
        bad = ratio.trusted & (ratio.value + 2 * ratio.error < 1)
    bad[-1] = False
    if not np.any(bad[1:]):
        return None
    return (
        f"More was added than is supported {ranges(bad, measured.curve.frequency)}: of what both denoised half-maps "
        "show there, more than half is no multiple of the half-maps' common signal. It may be likely, but these data "
        "do not hold it."
    )


def _damped(measured):
    v = measured.variances
    if v is None:
        return None
    kept, before, after = v.signal_kept, v.signal_to_noise_before, v.signal_to_noise_after
    with np.errstate(invalid="ignore", divide="ignore"):
        seems = v.signal.value / v.residual_noise.value
        bad = kept.trusted & before.trusted & after.trusted & (before.value > 1)
        bad &= kept.value + 2 * kept.error < _KEPT
        bad &= (after.value < _GAINED * before.value) & (seems > _SEEMS * before.value)
    bad[-1] = False
    if np.sum(bad[1:]) < 2:
        return None
    share = float(np.median(kept.value[bad]))
    return (
        f"Signal and noise are damped together {ranges(bad, measured.curve.frequency)}: {100 * share:.0f} % of the "
        "signal's amplitude is left there and its ratio to noise is no better than before. This is a filter, not "
        "denoising; the small residual noise alone would make it look good."
    )


def _cut(measured):
    """Signal's power in the whole box against that within the mask."""
    shells = _signal_shells(measured)
    shells = shells[shells >= 2]
    if not len(shells):
        return None
    voxels = measured.masked.voxels[shells]
    inside = np.sum(voxels * measured.masked.of(0, 1)[shells]) * measured.mask_power
    there = voxels * measured.unmasked.of(0, 1)[shells]
    error = np.sqrt(np.sum(voxels * measured.unmasked.of(0, 0)[shells] * measured.unmasked.of(1, 1)[shells]))
    share = 1 - inside / np.sum(there)
    if np.sum(there) > 0 and share > _OUTSIDE and share * np.sum(there) > _SIGMAS * error:
        return (
            f"The mask leaves out about {100 * share:.0f} % of the power that the half-maps have in common: it cuts "
            "the particle, or there is something else in the box. All numbers below are about what lies within it."
        )
    return None


def _never_falls(measured):
    if measured.curve.resolution(0.143).crossed:
        return None
    return (
        "The FSC of the half-maps never falls below 0.143. Either the voxels are too large for the resolution, or the "
        "half-maps are not independent (masked sharply, filtered or denoised together); then C_ref and every number "
        "below are too good."
    )


def _signal_shells(measured):
    """Shells from 1 up to the resolution at FSC-0.143."""
    length = max(measured.curve.box) * measured.curve.voxel_size
    last = int(length / measured.curve.resolution(0.143).angstrom)
    return np.arange(1, max(min(last + 1, len(measured.curve.fsc) - 1), 1))
