"""The boxes at the top of the page: warnings, and what the map may be used for."""

from html import escape

# Limits of the tests, shown when there are no warnings.
_SHELLS = (
    "These tests go shell by shell, over the whole mask: a single small false feature does not show in them. For that, "
    "look at the local map, and at the denoised map itself beside the full map."
)
# What warnings are about, where their kind does not say it.
_TITLES = {
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


def warnings_section(numbers: dict) -> str:
    """The warnings, or what was looked at.

    Args:
        numbers: what `crefjax.report.account.account` returns.
    """
    warnings = numbers["warnings"]
    if warnings:
        rows = "".join(
            f"<li><strong>{escape(_title(one['kind']))}.</strong> {escape(one['text'])}</li>" for one in warnings
        )
        title = "Warning" if len(warnings) == 1 else f"Warnings ({len(warnings)})"
        return f'<section class="box warn" id="warnings"><h2>{title}</h2><ul>{rows}</ul></section>'
    kind, title, more = "fine", "No warnings", _SHELLS
    if numbers["variances"] is None:
        kind, title = "open", "No warnings, but the main question stays open"
        more = (
            "How much of the map is bias, which the data do not hold, cannot be told without denoised half-maps. "
            + _SHELLS
        )
    return (
        f'<section class="box {kind}" id="warnings"><h2>{title}</h2><p>No sign of: {"; ".join(_checked(numbers))}. '
        f"{more}</p></section>"
    )


def _title(kind):
    return _TITLES[kind] if kind in _TITLES else kind.replace("_", " ").capitalize()


def _checked(numbers):
    """What an account would warn of, as far as it could look."""
    found = [
        "half-maps without signal, or whose FSC never falls",
        "a denoised map that is shifted, inverted, or of something else",
    ]
    if not numbers["mask"]["from"].startswith("none"):
        found.append("a mask that cuts the particle")
    if numbers["variances"] is not None:
        found += [
            "denoised half-maps in the wrong order",
            "noise left as it was",
            "signal and noise damped together",
            "added structure that outweighs the signal of a shell",
            "variances that contradict each other",
        ]
    return found


def use_section(use: dict) -> str:
    """What the map may be used for and what not, side by side.

    Args:
        use: `for` and `not_for`, lists of sentences.
    """

    def one(kind, title, lines):
        rows = "".join(f"<li>{escape(line)}</li>" for line in lines)
        return f'<section class="box {kind}"><h2>{title}</h2><ul>{rows}</ul></section>'

    return (
        f'<div class="two" id="use">{one("yes", "Use it for", use["for"])}'
        f"{one('not', 'Do not use it for', use['not_for'])}</div>"
    )
