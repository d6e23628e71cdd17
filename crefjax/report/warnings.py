"""What is wrong, or worth knowing, in a report: found in the numbers, said in plain words with resolutions in Å."""

import numpy as np

from crefjax.report.checks import inverted, not_denoised, one_map, shifted, signal_shells, swapped, unrelated
from crefjax.spectral.curves import has_no_signal

# Of the signal's power; what lies outside a mask beyond that is particle that the mask cuts.
_OUTSIDE = 0.1
# A gain within which a map counts as being on the half-maps' scale.
_GAIN = 1.15
# Damped: less of the signal is left than this, its ratio to noise no better than by this factor, though the ratio of
# the whole signal to what noise is left says so by the next; in so many shells, and such a share from the first on.
_KEPT, _GAINED, _SEEMS, _FEWEST, _MOST = 0.85, 1.2, 1.5, 2, 0.6
# Nothing removed: where signal to noise was below this, in so many shells at least, it is not even so much better, and
# noise is kept as much as the signal, to this share, in so many of all shells.
_NOISY, _WEAK, _BETTER, _AS_MUCH, _NEARLY_ALL = 10.0, 3, 1.1, 0.9, 0.8
_CERTAIN = 0.1  # relative error of a share of the signal that noise is compared with, also beyond that shell
_SIGMAS = 4.0
# Titles of the warnings whose kind does not say what they are about.
TITLES = {
    "inverted": "Inverted contrast",
    "swapped": "Denoised half-maps swapped",
    "one_map": "One denoised half-map twice",
    "contradicted": "The assumptions fail",
    "added": "Added structure",
    "damped": "Damped, not denoised",
    "cut": "The mask cuts the particle",
    "never_falls": "The FSC never falls",
    "not_denoised": "Not denoised",
    "nothing_removed": "Nothing removed",
    "unrelated": "Another structure",
    "half_maps": "The half-maps",
}


def warnings_of(measured) -> list[dict]:
    """What makes the map, or this report, less than it seems; the gravest first.

    Args:
        measured: `crefjax.report.measure.Measurements`.

    Returns:
        dicts of `kind` and `text`.
    """
    told_by_signal = {
        "unrelated": unrelated,
        "inverted": inverted,
        "shifted": shifted,
        "swapped": swapped,
        "one_map": one_map,
        "contradicted": _contradicted,
    }
    checks = {
        "not_denoised": not_denoised,
        "no_signal": _no_signal,
        **({} if has_no_signal(measured.curve.fsc) else told_by_signal),
        "nothing_removed": _nothing_removed,
        "added": _added,
        "damped": _damped,
        "cut": _cut,
        "never_falls": _never_falls,
    }
    texts = {kind: check(measured) for kind, check in checks.items()}
    return [{"kind": kind, "text": text} for kind, text in texts.items() if text]


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
    if measured.signal_scale and (faded := damped_shells(measured)).any():
        first, last = _outer(faded, measured.curve.frequency)
        notes.append(
            f"From {first} to {last} Å the output is no better than a filter: it fades there because the half-maps "
            "do not support more."
        )
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
    if not has_no_signal(measured.curve.fsc):
        return None
    angstrom = measured.curve.resolution(0.143).angstrom
    return (
        f"The half-maps hardly correlate: their FSC falls below 0.143 at {angstrom:.3g} Å, a few shells from the "
        "start. There is next to no signal that a denoised map could show; what it shows is made up of noise."
    )


def _contradicted(measured):
    v = measured.variances
    if v is None or not np.any(v.inconsistent[1:]):
        return None
    return (
        f"The equations contradict themselves {ranges(v.inconsistent, measured.curve.frequency)}: a variance comes "
        "out negative by more than its error. There, signal, bias and noise are not independent (half-maps that share "
        "noise, or denoised half-maps that know of each other); nothing is drawn where that is so."
    )


def _nothing_removed(measured):
    v = measured.variances
    if v is None:
        return None
    before, after = v.signal_to_noise_before, v.signal_to_noise_after
    weak = (before.trusted & after.trusted & (before.value < _NOISY))[1:-1]
    shells = np.arange(len(v.noise_kept.value))[1:-1]
    told = v.signal_kept.trusted & (v.signal_kept.error < _CERTAIN * np.abs(v.signal_kept.value))
    told, noisy = shells[told[1:-1]], shells[v.noise_kept.trusted[1:-1]]
    if np.sum(weak) < _WEAK or not len(told) or not len(noisy):
        return None
    kept = np.interp(noisy, told, v.signal_kept.value[told])
    better = float(np.median(after.value[1:-1][weak] / before.value[1:-1][weak]))
    if better >= _BETTER or np.mean(v.noise_kept.value[noisy] > _AS_MUCH * kept) < _NEARLY_ALL:
        return None
    why = "The denoised half-maps are the noisy ones, but for a scale, or sharpened."
    if measured.signal_scale:
        why = "The network did not help here, so that on the scale of the signal hardly more than the full map is left."
    return (
        f"Nothing was removed: signal to noise is {better:.2f} times what it was, and noise is kept as much as the "
        f"signal. {why}"
    )


def added_shells(measured) -> np.ndarray:
    """Where more was added than the signal that is left; `(shells,)`, bool."""
    v = measured.variances
    if v is None:
        return np.zeros(len(measured.with_full), bool)
    ratio = v.signal_to_added
    with np.errstate(invalid="ignore"):
        bad = ratio.trusted & (ratio.value + 2 * ratio.error < 1)
    bad[[0, -1]] = False
    return bad


def _added(measured):
    bad = added_shells(measured)
    if not np.any(bad):
        return None
    return (
        f"More was added than is supported {ranges(bad, measured.curve.frequency)}: of what both denoised half-maps "
        "show there, more than half is no multiple of the half-maps' common signal. It may be likely, but these data "
        "do not hold it."
    )


def damped_shells(measured) -> np.ndarray:
    """Where signal and noise were damped together, `(shells,)`, bool: one range that ends with the last such shell.

    That the ratio of signal to noise is better speaks against it; that the ratio is not to be trusted does not.
    """
    v = measured.variances
    kept, before, after = v.signal_kept, v.signal_to_noise_before, v.signal_to_noise_after
    looked_at = kept.trusted.copy()
    looked_at[[0, -1]] = False
    with np.errstate(invalid="ignore", divide="ignore"):
        bad = looked_at & (kept.value + 2 * kept.error < _KEPT) & (kept.value + 2 * kept.error > 0)
        bad &= ~(after.value >= _GAINED * before.value) & ~(v.residual_noise.value <= 0)
        seems = v.signal.value / v.residual_noise.value > _SEEMS * before.value
        bad &= seems | ~(before.trusted & after.trusted)
    places = np.flatnonzero(bad)
    if len(places) < _FEWEST:
        return np.zeros_like(bad)
    last = places[-1]
    first = next(s for s in places if np.sum(bad[s : last + 1]) >= _MOST * np.sum(looked_at[s : last + 1]))
    one = np.zeros_like(bad)
    one[first : last + 1] = last > first
    return one & looked_at


def _outer(chosen, frequency):
    places = np.flatnonzero(chosen)
    return f"{1 / frequency[places[0]]:.3g}", f"{1 / frequency[places[-1]]:.3g}"


def _damped(measured):
    if measured.variances is None or measured.signal_scale or not (bad := damped_shells(measured)).any():
        return None
    first, last = _outer(bad, measured.curve.frequency)
    share = max(float(np.median(measured.variances.signal_kept.value[bad])), 0.0)
    return (
        f"Signal and noise are damped together from {first} to {last} Å: {100 * share:.0f} % of the signal's amplitude "
        "is left there and its ratio to noise is no better than before. This is a filter, not denoising; the small "
        "residual noise alone would make it look good."
    )


def _cut(measured):
    """Signal's power in the whole box against that within the mask."""
    shells = signal_shells(measured.curve)
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


_LOOKING = "Looking at the structure, and showing it, beside the full map at a matched contour."
_BUILDING = (
    "Building and checking a model by eye, with the full map at hand wherever the half-maps leave a doubt.",
    "Building and checking a model by eye, down to {:.3g} Å and not beyond, where added structure begins: low-pass the "
    "map there; keep the full map at hand wherever the half-maps leave a doubt.",
)
_NOT_FOR = (
    "Resolution: an FSC between denoised half-maps, or between a denoised map and a model made in it, is no "
    "resolution. The resolution is that of the half-maps as they were.",
    "Refining a model against it as data, or any statistic of fit (R, Q-score, model-to-map FSC) that is published: "
    "use the full map or the half-maps.",
    "Claiming a feature that is seen in the denoised map alone.",
)
_ANYTHING = "Anything else, before that."
# What to do before the map is of any use, the gravest first.
_MEND = {
    "unrelated": "give the map that was denoised from these half-maps",
    "inverted": "invert the denoised map",
    "shifted": "shift the denoised map back, or mend its header, and make the report again",
    "swapped": "give the denoised half-maps in the order of the half-maps, and make the report again",
    "one_map": "denoise each half-map for itself, and make the report again",
    "contradicted": "find half-maps that share no noise, and denoise each of them knowing nothing of the other",
    "not_denoised": "give the map that was denoised; this one is good for what the noisy map is",
    "nothing_removed": "denoise it, or denoise it otherwise; this one is good for what the noisy map is",
}


def use_of(kinds, added_from: float | None) -> dict[str, list[str]]:
    """Plain sentences, `for` and `not_for`.

    Args:
        kinds: of the warnings.
        added_from: resolution at which structure without support begins, Å, or None.
    """
    if "no_signal" in kinds:
        return {"for": ["Nothing: the half-maps hold next to no signal."], "not_for": ["Anything.", *_NOT_FOR]}
    steps = [step for kind, step in _MEND.items() if kind in kinds]
    if steps:
        return {"for": [f"Nothing, until this is put right: {'; '.join(steps)}."], "not_for": [_ANYTHING, *_NOT_FOR]}
    uses = [_LOOKING, _BUILDING[0] if added_from is None else _BUILDING[1].format(added_from)]
    limits = list(_NOT_FOR)
    if added_from is not None:
        limits.append(f"Anything finer than {added_from:.3g} Å: more was added there than the half-maps support.")
    if "never_falls" in kinds:
        limits.append("Claims that rest on C_ref or on the ratios, unless the half-maps are known to be independent.")
    if "cut" in kinds:
        limits.append("Judging what lies outside the mask: nothing here was measured there.")
    return {"for": uses, "not_for": limits}
