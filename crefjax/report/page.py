"""The report's page: one HTML file that holds all it shows and asks nothing of the network.

What comes first is what a reader must know first: warnings, what the map may be used for, the numbers.
"""

import json
from html import escape
from typing import NamedTuple
from urllib.parse import quote

from crefjax.report.boxes import use_section, warnings_section
from crefjax.report.curves import Drawn
from crefjax.report.headers import Row
from crefjax.report.look import SCRIPT, STYLE
from crefjax.report.planes import data_uri, slices_section
from crefjax.report.slices import Slices

# Nothing but what stands in the page may be loaded, even if a text from outside should slip through the escaping.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)


class Content(NamedTuple):
    """What a page tells.

    Attributes:
        name: of the denoised map.
        half_maps: names of the two half-maps.
        numbers: what `crefjax.report.account.account` returns.
        figures: drawn from it.
        slices: through the maps.
        header: rows of the two headers.
        files: of the report's folder, beside the page: name, and what it is.
        record: the rest of `report.json`: `crefjax`, `versions`, `created`, `inputs`, `parameters`, `local`.
    """

    name: str
    half_maps: tuple[str, str]
    numbers: dict
    figures: list[Drawn]
    slices: Slices
    header: list[Row]
    files: dict[str, str]
    record: dict


def page(content: Content) -> str:
    """The text of `index.html`; whatever comes from files and paths is escaped."""
    title = f"{content.name}: what can be trusted"
    sections = [
        warnings_section(content.numbers),
        use_section(content.numbers["use"]),
        _key_numbers(content.numbers),
        slices_section(content.slices, content.record["local"]),
        _figures(content),
        _header(content),
        _notes(content.numbers["notes"]),
        _files(content.files),
        _record(content.record),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
{_top(content)}
<main>
{chr(10).join(section for section in sections if section)}
</main>
<footer>crefjax {escape(content.record["crefjax"])}, {escape(content.record["created"])}. This page is one file: it
can be moved, mailed and opened without a network; the links to other files need the folder that it came in.</footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _top(content):
    numbers = content.numbers
    box = " × ".join(str(side) for side in numbers["box"])
    halves = " and ".join(escape(name) for name in content.half_maps)
    return (
        '<header class="top"><div><p class="what">crefjax report: what can be trusted</p>'
        f"<h1>{escape(content.name)}</h1>"
        f"<p>denoised from {halves}; {box} voxels of {numbers['voxel_size']:.4g} Å; "
        f"mask: {escape(numbers['mask']['from'])}</p></div></header>"
    )


def _key_numbers(numbers):
    entries = [_resolution(numbers, "0.143"), _resolution(numbers, "0.5")]
    entries.append(
        (
            "Distance from C_ref",
            _number(numbers["cref_rmse"]),
            "RMSE of FSC(denoised, full)² and C_ref² over all shells; noise that is left and structure that was added "
            "can cancel in it",
        )
    )
    for name, words in (("signal_kept", "Signal kept"), ("noise_kept", "Noise kept")):
        if numbers[name] is not None:
            entries.append(_kept(numbers, name, words))
    if numbers["gain"] is not None:
        more = "by which the denoised half-maps were multiplied before bias was computed"
        entries.append(("Gain", _number(numbers["gain"]), more))
    mask = numbers["mask"]
    volume = "unknown" if mask["volume"] is None else _volume(mask["volume"])
    share = "" if mask["share"] is None else f"{mask['share']:.1%} of the box, {mask['from']}"
    entries.append(("Mask", volume, share))
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in entries
    )
    return f'<section id="numbers"><h2>In numbers</h2><dl class="numbers">{rows}</dl></section>'


def _resolution(numbers, threshold):
    found = numbers["resolution"][f"fsc_{threshold}"]
    more = "of the noisy half-maps, masked" if found["crossed"] else "Nyquist limit: the FSC never falls below it"
    return (
        f"Resolution, FSC {threshold}",
        "unknown" if found["angstrom"] is None else f"{found['angstrom']:.2f} Å",
        more,
    )


def _kept(numbers, name, words):
    """The median share of amplitude over the shells that are trusted, up to the resolution of the half-maps."""
    resolution = numbers["resolution"]["fsc_0.143"]["angstrom"]
    found = numbers[name]
    values = sorted(
        value
        for value, trusted, frequency in zip(found["value"], found["trusted"], numbers["frequency"], strict=True)
        if trusted and value is not None and resolution and 0 < frequency * resolution <= 1
    )
    if not values:
        return words, "unknown", "no shell in which it can be told"
    return words, f"{values[len(values) // 2]:.0%}", f"of its amplitude; median of shells up to {resolution:.3g} Å"


def _volume(value):
    """A volume in nm³ from one in Å³."""
    return f"{value / 1000:,.0f} nm³" if value >= 1e5 else f"{value / 1000:.3g} nm³"


def _number(value):
    return "unknown" if value is None else f"{value:.3g}"


def _figures(content):
    figures = "".join(
        f'<figure><h3>{escape(one.title)}</h3><img src="{data_uri(one.svg, "image/svg+xml")}" alt="{escape(one.alt)}">'
        f'<figcaption>{escape(one.caption)} <a href="figures/{one.name}.png">PNG</a> '
        f'<a href="figures/{one.name}.svg">SVG</a></figcaption></figure>'
        for one in content.figures
    )
    open_question = ""
    if content.numbers["variances"] is None:
        open_question = (
            '<div class="box open"><h2>What stays open</h2><p>How much of the denoised map is signal, residual noise '
            "and bias cannot be told, because no denoised half-maps were given: a single denoised map cannot show "
            "which of its details would come again from other noise. Denoise each half-map alone, with the settings "
            "of the full map, and give both with <code>--denoised-halves</code>.</p></div>"
        )
    return f'<section id="curves"><h2>Shell by shell</h2><div class="figures">{figures}</div>{open_question}</section>'


def _header(content):
    def remark(row):
        if not row.differs:
            return ""
        return "differs, as it should" if row.expected else "differs"

    rows = "".join(
        f'<tr{"" if not row.differs or row.expected else " class=differs"}><th scope="row">{escape(row.name)}</th>'
        f"<td>{escape(row.before)}</td><td>{escape(row.after)}</td><td>{remark(row)}</td></tr>"
        for row in content.header
    )
    return (
        '<section id="header"><h2>Header of input and output</h2><div class="scroll"><table>'
        "<caption>The header decides where programs place a map. Where size, voxel size or origin differ, the two "
        "maps do not lie on each other.</caption>"
        f'<thead><tr><th scope="col">Entry</th><th scope="col">{escape(content.half_maps[0])}</th>'
        f'<th scope="col">{escape(content.name)}</th><th scope="col">Remark</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _notes(notes):
    if not notes:
        return ""
    return f'<section id="notes"><h2>Notes</h2><ul>{"".join(f"<li>{escape(one)}</li>" for one in notes)}</ul></section>'


def _files(files):
    rows = "".join(
        f'<li><a href="{_link(name)}">{escape(name)}</a>: {escape(what)}</li>' for name, what in files.items()
    )
    return f'<section id="files"><h2>Files</h2><ul>{rows}</ul></section>'


def _link(name):
    return escape("./" + quote(name))  # ./, or a name such as `a:b.mrc` would be an address elsewhere


def _record(record):
    inputs = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(one["path"])}</td><td>{one["bytes"]:,}</td>'
        f'<td class="hash">{escape(one["sha256"])}</td></tr>'
        for name, one in record["inputs"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    parameters = json.dumps(record["parameters"], indent=1, ensure_ascii=False)
    return (
        '<section id="record"><h2>How this was made</h2><div class="scroll"><table><thead><tr>'
        '<th scope="col">Input</th><th scope="col">File</th><th scope="col">Bytes</th>'
        '<th scope="col">SHA-256</th></tr></thead>'
        f"<tbody>{inputs}</tbody></table></div>"
        f"<p class='small'>crefjax {escape(record['crefjax'])}; {escape(versions)}</p>"
        f"<h3>Parameters</h3><pre>{escape(parameters)}</pre></section>"
    )
