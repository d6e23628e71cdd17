"""What a denoised map may be used for and what not, as its warnings allow."""

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
