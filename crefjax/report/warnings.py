"""Warnings, notes, and recommendations for the use of a map, in plain words with resolutions in Å.

Each kind of warning is an entry of `WARNINGS`, the most serious first; the page, `report.json`, and the recommendations
follow from it.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from crefjax.report.checks import inverted, not_denoised, one_map, shifted, swapped, unrelated
from crefjax.spectral.curves import THRESHOLD, has_no_signal

_OUTSIDE = 0.1  # share of the signal's power outside a mask from which the mask cuts the particle
_SAME_SCALE = 1.15  # a gain within this factor of 1 means that a map is on the half-maps' scale
_SIGMAS = 4.0
# Damped: less of the signal's amplitude is left than _DAMPED, its ratio to noise is not better by _BETTER_RATIO, though
# the ratio of the whole signal to the noise that is left suggests _SEEMING_RATIO; in at least _FEWEST_DAMPED shells,
# and in at least the share _MOST of the shells from the first such one on.
_DAMPED, _BETTER_RATIO, _SEEMING_RATIO, _FEWEST_DAMPED, _MOST = 0.85, 1.2, 1.5, 2, 0.6
# Nothing removed: in shells with a signal-to-noise ratio below _NOISY, at least _FEWEST_NOISY of them, the ratio is not
# even better by _BARELY_BETTER, and noise is kept as much as _AS_MUCH of the signal in the share _NEARLY_ALL of shells.
_NOISY, _FEWEST_NOISY, _BARELY_BETTER, _AS_MUCH, _NEARLY_ALL = 10.0, 3, 1.1, 0.9, 0.8
_CERTAIN = 0.1  # relative error up to which a share of the signal is compared with that of the noise
HALF_MAPS = "half_maps"  # kind of the findings of the check of the half-maps
_LOOKING = "Looking at the structure, and showing it, beside the full map at a matched contour."
_BUILDING = (
    "Building and checking a model by eye, with the full map at hand wherever the half-maps leave a doubt.",
    "Building and checking a model by eye, down to {:.3g} Å and not beyond, where added structure begins: low-pass the "
    "map there; keep the full map at hand wherever the half-maps leave a doubt.",
)
_NOT_FOR = (
    "Resolution: an FSC between denoised half-maps, or between a denoised map and a model made in it, is not a "
    "resolution. The resolution is that of the original half-maps.",
    "Refining a model against it as data, or any statistic of fit (R, Q-score, model-to-map FSC) that is published: "
    "use the full map or the half-maps.",
    "Claiming a feature that is seen in the denoised map alone.",
)


class ReportWarning(NamedTuple):
    """A kind of warning.

    Attributes:
        kind: its name in `report.json`.
        title: title on the page.
        test: returns the text of the warning for `crefjax.report.measure.Measurements`, or None or "" if all is well.
        absence: the problem of which there is no sign if the test is passed, for a page without warnings.
        remedy: what to do before the map is of any use; None if it can be used.
        limit: what the map should not be used for; None for no limit beyond those of any denoised map.
        needs: `signal`, if the test is skipped for half-maps that hardly correlate; `halves`, `mask`, or `symmetry`, if
            it says nothing without denoised half-maps, a mask, or an average over a point group.
    """

    kind: str
    title: str
    test: Callable[..., str | None]
    absence: str
    remedy: str | None = None
    limit: str | None = None
    needs: tuple[str, ...] = ()


def find_warnings(measured, pair_warnings: Sequence[str] = ()) -> list[dict]:
    """Return the warnings that apply to the map or to this report, the most serious first.

    Args:
        measured: `crefjax.report.measure.Measurements`.
        pair_warnings: findings of the check of the half-maps.

    Returns:
        Dicts of `kind` and `text`.
    """
    no_signal = has_no_signal(measured.curve.fsc)
    tests = [warning for warning in WARNINGS if not (no_signal and "signal" in warning.needs)]
    texts = [(warning.kind, warning.test(measured)) for warning in tests]
    texts += [(HALF_MAPS, f"{text[0].upper()}{text[1:]}.") for text in pair_warnings]
    return [{"kind": kind, "text": text} for kind, text in texts if text]


def warning_title(kind: str) -> str:
    """Return the title of a kind of warning."""
    titles = {warning.kind: warning.title for warning in WARNINGS} | {HALF_MAPS: "The half-maps"}
    return titles.get(kind) or kind.replace("_", " ").capitalize()


def passed_tests(available: Collection[str]) -> list[str]:
    """Return the problems of which a report without warnings shows no sign.

    Args:
        available: which of the names in `ReportWarning.needs`, besides `signal`, the report has.
    """
    available = {"signal", *available}
    return [warning.absence for warning in WARNINGS if available.issuperset(warning.needs)]


def find_notes(measured) -> list[str]:
    """Return notes: what a reader should know although nothing is wrong."""
    notes = [
        "Variances are those of the masked maps, per Fourier voxel, divided by the sum of the squared mask: white "
        "noise has its own variance whatever the mask. The mask blurs every spectrum by its own transform, in all maps "
        "alike; errors count the independent voxels that it leaves in a shell."
    ]
    if measured.variances is None:
        notes.append(
            "Without denoised half-maps, signal, bias, and residual noise of the denoised map cannot be separated: it "
            "was made from both half-maps, so its noise is in either of them. Denoise each half-map alone, with the "
            "same settings, and give both with --denoised-halves."
        )
        return notes
    if measured.signal_scale and (faded := damped_shells(measured)).any():
        first, last = _limits(faded, measured.curve.frequency)
        notes.append(
            f"From {first} to {last} Å the output is not better than a filter: it fades there because the half-maps "
            "do not support more."
        )
    gain = measured.variances.gain
    if not 1 / _SAME_SCALE < gain < _SAME_SCALE:
        notes.append(
            f"The denoised half-maps are not on the half-maps' scale: they were multiplied by {gain:.4g} before bias "
            "and residual noise were computed."
        )
    notes.append(
        "Variances are those of the half-maps and of the denoised half-maps. The full map has half their noise; its "
        "denoised version is a little better than theirs."
    )
    return notes


def shell_ranges(chosen: np.ndarray, frequency: np.ndarray) -> str:
    """Describe shells in words, `from 8.2 to 5.1 Å and from 4.0 to 3.8 Å`, by the three longest runs.

    Args:
        chosen: `(shells,)`, bool; shell 0 is ignored.
        frequency: `(shells,)`, 1/Å.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(chosen[1:], np.int8), [0]])))
    runs = sorted(zip(edges[::2] + 1, edges[1::2], strict=True), key=lambda run: run[0] - run[1])[:3]
    words = [
        f"at {1 / frequency[a]:.3g} Å" if a == b else f"from {1 / frequency[a]:.3g} to {1 / frequency[b]:.3g} Å"
        for a, b in sorted(runs)
    ]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _limits(chosen, frequency):
    """Return the coarsest and the finest resolution of shells, Å."""
    shells = np.flatnonzero(chosen)
    return f"{1 / frequency[shells[0]]:.3g}", f"{1 / frequency[shells[-1]]:.3g}"


def _no_signal(measured):
    if not has_no_signal(measured.curve.fsc):
        return None
    angstrom = measured.curve.resolution(THRESHOLD).angstrom
    return (
        f"The half-maps hardly correlate: their FSC falls below 0.143 at {angstrom:.3g} Å, within the first "
        "few shells. There is almost no signal that a denoised map could show; what it shows comes from noise."
    )


def _contradicted(measured):
    variances = measured.variances
    if variances is None or not np.any(variances.inconsistent[1:]):
        return None
    return (
        f"The equations contradict each other {shell_ranges(variances.inconsistent, measured.curve.frequency)}: a "
        "variance comes out negative by more than its error. There, signal, bias, and noise are not independent "
        "(half-maps that share noise, or denoised half-maps that depend on each other); nothing is drawn there."
    )


def _nothing_removed(measured):
    v = measured.variances
    if v is None:
        return None
    before, after = v.signal_to_noise_before, v.signal_to_noise_after
    noisy = (before.trusted & after.trusted & (before.value < _NOISY))[1:-1]
    shells = np.arange(len(v.noise_kept.value))[1:-1]
    certain = v.signal_kept.trusted & (v.signal_kept.error < _CERTAIN * np.abs(v.signal_kept.value))
    certain_shells, noise_shells = shells[certain[1:-1]], shells[v.noise_kept.trusted[1:-1]]
    if np.sum(noisy) < _FEWEST_NOISY or not len(certain_shells) or not len(noise_shells):
        return None
    signal_kept = np.interp(noise_shells, certain_shells, v.signal_kept.value[certain_shells])
    ratio = float(np.median(after.value[1:-1][noisy] / before.value[1:-1][noisy]))
    if ratio >= _BARELY_BETTER or np.mean(v.noise_kept.value[noise_shells] > _AS_MUCH * signal_kept) < _NEARLY_ALL:
        return None
    reason = "The denoised half-maps are the noisy ones, at most rescaled or sharpened."
    if measured.signal_scale:
        reason = "The network did not help here, so that on the scale of the signal little but the full map is left."
    return (
        f"Nothing was removed: signal to noise is {ratio:.2f} times what it was, and noise is kept as much as the "
        f"signal. {reason}"
    )


def added_shells(measured) -> np.ndarray:
    """Return the shells in which more was added than the signal that is left; `(shells,)`, bool."""
    if measured.variances is None:
        return np.zeros(len(measured.fsc_to_full), bool)
    ratio = measured.variances.signal_to_added
    with np.errstate(invalid="ignore"):
        added = ratio.trusted & (ratio.value + 2 * ratio.error < 1)
    added[[0, -1]] = False
    return added


def _added(measured):
    added = added_shells(measured)
    if not np.any(added):
        return None
    return (
        f"More was added than is supported {shell_ranges(added, measured.curve.frequency)}: of what both denoised "
        "half-maps show there, more than half is not a multiple of the half-maps' common signal. It may be plausible, "
        "but these data do not contain it."
    )


def damped_shells(measured) -> np.ndarray:
    """Return where signal and noise were damped together, `(shells,)`, bool: one range up to the last such shell.

    A better ratio of signal to noise speaks against it; a ratio that is not trusted does not.
    """
    v = measured.variances
    kept, before, after = v.signal_kept, v.signal_to_noise_before, v.signal_to_noise_after
    tested = kept.trusted.copy()
    tested[[0, -1]] = False
    with np.errstate(invalid="ignore", divide="ignore"):
        damped = tested & (kept.value + 2 * kept.error < _DAMPED) & (kept.value + 2 * kept.error > 0)
        damped &= ~(after.value >= _BETTER_RATIO * before.value) & ~(v.residual_noise.value <= 0)
        seeming = v.signal.value / v.residual_noise.value > _SEEMING_RATIO * before.value
        damped &= seeming | ~(before.trusted & after.trusted)
    shells = np.flatnonzero(damped)
    if len(shells) < _FEWEST_DAMPED:
        return np.zeros_like(damped)
    last = shells[-1]
    first = next(s for s in shells if np.sum(damped[s : last + 1]) >= _MOST * np.sum(tested[s : last + 1]))
    within = np.zeros_like(damped)
    within[first : last + 1] = last > first
    return within & tested


def _damped(measured):
    if measured.variances is None or measured.signal_scale or not (damped := damped_shells(measured)).any():
        return None
    first, last = _limits(damped, measured.curve.frequency)
    share = max(float(np.median(measured.variances.signal_kept.value[damped])), 0.0)
    return (
        f"Signal and noise are damped together from {first} to {last} Å: {100 * share:.0f} % of the signal's amplitude "
        "is left there and its ratio to noise is not better than before. This is a filter, not denoising; the small "
        "residual noise alone would make it look good."
    )


def _cut(measured):
    """Compare the signal's power in the whole box with that within the mask."""
    shells = measured.curve.signal_shells()
    shells = shells[shells >= 2]
    if not len(shells):
        return None
    voxels = measured.masked.voxels[shells]
    inside = np.sum(voxels * measured.masked.of(0, 1)[shells]) * measured.mask_power
    whole = np.sum(voxels * measured.unmasked.of(0, 1)[shells])
    error = np.sqrt(np.sum(voxels * measured.unmasked.of(0, 0)[shells] * measured.unmasked.of(1, 1)[shells]))
    share = 1 - inside / whole
    if whole > 0 and share > _OUTSIDE and share * whole > _SIGMAS * error:
        return (
            f"The mask leaves out about {100 * share:.0f} % of the power that the half-maps have in common: it cuts "
            "the particle, or there is something else in the box. All numbers below are about what lies within it."
        )
    return None


def _symmetry(measured):
    text = None if measured.symmetry is None else measured.symmetry.warning
    return text and f"{text[0].upper()}{text[1:]}."


def _preferred(measured):
    found = measured.anisotropy
    if found is None or not found.preferred:
        return None
    text = found.describe()
    return f"{text[0].upper()}{text[1:]}."


def _never_falls(measured):
    if measured.curve.resolution(THRESHOLD).crossed:
        return None
    return (
        "The FSC of the half-maps never falls below 0.143. Either the voxels are too large for the resolution, or the "
        "half-maps are not independent (masked sharply, filtered or denoised together); then C_ref and every number "
        "below are too good."
    )


WARNINGS = (
    ReportWarning(
        kind="not_denoised",
        title="Not denoised",
        test=not_denoised,
        absence="a noisy map in place of a denoised one",
        remedy="give the map that was denoised; this one can be used only as the noisy map can",
    ),
    ReportWarning(kind="no_signal", title="No signal", test=_no_signal, absence="half-maps without signal"),
    ReportWarning(
        kind="unrelated",
        title="Another structure",
        test=unrelated,
        absence="a denoised map of something else",
        remedy="give the map that was denoised from these half-maps",
        needs=("signal",),
    ),
    ReportWarning(
        kind="inverted",
        title="Inverted contrast",
        test=inverted,
        absence="inverted contrast",
        remedy="invert the denoised map",
        needs=("signal",),
    ),
    ReportWarning(
        kind="shifted",
        title="Shifted",
        test=shifted,
        absence="a shift",
        remedy="shift the denoised map back, or correct its header, and make the report again",
        needs=("signal",),
    ),
    ReportWarning(
        kind="swapped",
        title="Denoised half-maps swapped",
        test=swapped,
        absence="denoised half-maps in the wrong order",
        remedy="give the denoised half-maps in the order of the half-maps, and make the report again",
        needs=("signal", "halves"),
    ),
    ReportWarning(
        kind="one_map",
        title="One denoised half-map twice",
        test=one_map,
        absence="one denoised half-map given twice",
        remedy="denoise each half-map by itself, and make the report again",
        needs=("signal", "halves"),
    ),
    ReportWarning(
        kind="contradicted",
        title="The assumptions fail",
        test=_contradicted,
        absence="variances that contradict each other",
        remedy="find half-maps that share no noise, and denoise each of them independently of the other",
        needs=("signal", "halves"),
    ),
    ReportWarning(
        kind="nothing_removed",
        title="Nothing removed",
        test=_nothing_removed,
        absence="noise left as it was",
        remedy="denoise it, or denoise it differently; this one can be used only as the noisy map can",
        needs=("halves",),
    ),
    ReportWarning(
        kind="added",
        title="Added structure",
        test=_added,
        absence="added structure that outweighs the signal of a shell",
        needs=("halves",),
    ),
    ReportWarning(
        kind="damped",
        title="Damped, not denoised",
        test=_damped,
        absence="signal and noise damped together",
        needs=("halves",),
    ),
    ReportWarning(
        kind="symmetry",
        title="Doubtful symmetry",
        test=_symmetry,
        absence="a symmetry that the half-maps do not have",
        limit="Judging how the subunits differ from each other: they were averaged.",
        needs=("symmetry",),
    ),
    ReportWarning(
        kind="preferred_orientation",
        title="Preferred orientation",
        test=_preferred,
        absence="a resolution that depends on the direction",
        limit="Judging shapes and distances along the worst direction: density is smeared there.",
        needs=("signal",),
    ),
    ReportWarning(
        kind="cut",
        title="The mask cuts the particle",
        test=_cut,
        absence="a mask that cuts the particle",
        limit="Judging what lies outside the mask: nothing was measured there.",
        needs=("mask",),
    ),
    ReportWarning(
        kind="never_falls",
        title="The FSC never falls",
        test=_never_falls,
        absence="an FSC that never falls",
        limit="Claims that rest on C_ref or on the ratios, unless the half-maps are known to be independent.",
    ),
)


def recommendations(kinds: Collection[str], added_from: float | None) -> dict[str, list[str]]:
    """Return plain sentences on the use of the map, `for` and `not_for`.

    Args:
        kinds: kinds of the warnings.
        added_from: resolution at which structure without support begins, Å, or None.
    """
    if "no_signal" in kinds:
        return {"for": ["Nothing: the half-maps hold almost no signal."], "not_for": ["Anything.", *_NOT_FOR]}
    present = [warning for warning in WARNINGS if warning.kind in kinds]
    remedies = [warning.remedy for warning in present if warning.remedy]
    if remedies:
        return {
            "for": [f"Nothing, until this is corrected: {'; '.join(remedies)}."],
            "not_for": ["Anything else, before that.", *_NOT_FOR],
        }
    limits = list(_NOT_FOR)
    if added_from is not None:
        limits.append(f"Anything finer than {added_from:.3g} Å: more was added there than the half-maps support.")
    return {
        "for": [_LOOKING, _BUILDING[0] if added_from is None else _BUILDING[1].format(added_from)],
        "not_for": limits + [warning.limit for warning in present if warning.limit],
    }
