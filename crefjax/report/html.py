"""The page of a report: one HTML file that contains everything it shows and loads nothing from elsewhere.

It starts with what a reader must know first: the warnings, what the map may be used for, and the numbers.
"""

import json
import math
from html import escape
from typing import NamedTuple
from urllib.parse import quote

from crefjax.io.header import HeaderRow
from crefjax.report.figures import RenderedFigure
from crefjax.report.slices import ImageLayer, Plane, Slices
from crefjax.report.viewer import Viewer, asset, data_uri, document, viewer_scripts, viewer_sections
from crefjax.report.warnings import passed_tests, warning_title

# Limits of the tests, shown when there are no warnings.
_LIMITS = (
    "These tests go shell by shell, over the whole mask: a single small false feature does not show in them. For that, "
    "look at the local map, and at the denoised map itself beside the full map."
)
_HIGHEST = 560  # CSS pixels; planes of a filament would otherwise be higher than a screen
_CHANGE = (
    "What denoising changed: the difference of the two, |denoised − full|, in standard deviations σ of the full map "
    "within the mask. If this looks like noise alone, noise was removed. Where the particle's shape shows, its "
    "structure was changed too, if only by sharpening or smoothing."
)
_LOCAL_EXPLANATIONS = {
    "local agreement": "How well the noisy half-maps confirm, around each voxel, what the denoised ones show: 1 coarse "
    "and fine, as far as their noise allows; 0.5 the coarse part alone, as of smeared or flexible density; 0 nothing. "
    "Do not believe what is dark here.",
    "local change": "How much of the structure around each voxel was added or removed: 0 nothing, 1 all. That noise is "
    "gone, or that the whole map is sharper or smoother, does not count as a change.",
}
_CONTROLS = """<div class="controls">
<div class="slide"><label for="slider">full map</label>
<input type="range" id="slider" min="0" max="100" step="1" value="50" aria-describedby="position"
 aria-label="from the full map (before) to the denoised map (after)">
<span aria-hidden="true">denoised</span></div>
<output id="position" for="slider">50 % denoised</output>
<fieldset><legend>Slider</legend>
<label><input type="radio" name="mode" id="wipe" checked> wipes</label>
<label><input type="radio" name="mode" id="fade"> fades</label></fieldset>
<label><input type="checkbox" id="edge" checked> mask's edge</label>
</div>"""
_TAGS = (
    '<span class="divider"></span><span class="tag after-tag" aria-hidden="true">denoised</span>'
    '<span class="tag before-tag" aria-hidden="true">full map</span>'
)


def warnings_section(numbers: dict) -> str:
    """Return the section with the warnings or, if there are none, with the tests that were passed.

    Args:
        numbers: what `crefjax.report.measure.report_numbers` returns.
    """
    warnings = numbers["warnings"]
    if warnings:
        rows = "".join(
            f"<li><strong>{escape(warning_title(warning['kind']))}.</strong> {escape(warning['text'])}</li>"
            for warning in warnings
        )
        title = "Warning" if len(warnings) == 1 else f"Warnings ({len(warnings)})"
        return f'<section class="box warn" id="warnings"><h2>{title}</h2><ul>{rows}</ul></section>'
    complete = numbers["variances"] is not None
    available = {"halves": complete, "mask": not numbers["mask"]["whole_box"], "symmetry": bool(numbers["symmetry"])}
    passed = passed_tests([name for name, present in available.items() if present])
    kind, title, explanation = "fine", "No warnings", _LIMITS
    if not complete:
        kind, title = "open", "No warnings, but the main question stays open"
        explanation = (
            "How much of the map is bias, which the data do not contain, cannot be measured without denoised "
            f"half-maps. {_LIMITS}"
        )
    return (
        f'<section class="box {kind}" id="warnings"><h2>{title}</h2><p>No sign of: {"; ".join(passed)}. '
        f"{explanation}</p></section>"
    )


def use_section(use: dict) -> str:
    """Return two sections side by side: what the map may be used for and what not.

    Args:
        use: `for` and `not_for`, lists of sentences.
    """

    def box(kind, title, lines):
        return f'<section class="box {kind}"><h2>{title}</h2>{_list(lines)}</section>'

    return (
        f'<div class="two" id="use">{box("yes", "Use it for", use["for"])}'
        f"{box('not', 'Do not use it for', use['not_for'])}</div>"
    )


def _list(lines):
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def slices_section(slices: Slices, local: dict | None) -> str:
    """Return the section with the three planes: before and after, the change, and local maps if present.

    Args:
        slices: slices to show.
        local: `window` and `resolution` of the local maps, Å, or None.
    """
    matched = f"{slices.gain:.4g} × denoised {'−' if slices.offset < 0 else '+'} {abs(slices.offset):.4g}"
    before_after = "".join(
        _figure(plane, number, slices.before, slices.after) for number, plane in enumerate(slices.planes)
    )
    parts = [
        '<section id="slices"><h2>Before and after</h2>',
        "<p>Three planes, through where the particle has most; the part of the box around the mask. Both maps are in "
        f"the same grays, {slices.before.low:.3g} to {slices.before.high:.3g}, after the denoised map was matched to "
        f"the full map by least squares within the mask ({matched}). The orange line is the mask's edge at 0.5.</p>",
        _CONTROLS,
        _row(slices.planes, before_after),
        f"<h3>Change</h3><p>{_CHANGE}</p>",
        _colored(slices.planes, slices.change),
    ]
    for layer in slices.local:
        window = f"Moving window: {local['window']:.3g} Å, full width at half maximum."
        if local["resolution"] is None:
            window = "The half-maps agree too little to measure it: it is 0 everywhere."
        explanation = f"{escape(_LOCAL_EXPLANATIONS[layer.name])} {window}"
        parts.append(f"<h3>{escape(layer.name.capitalize())}</h3><p>{explanation}</p>")
        parts.append(_colored(slices.planes, layer))
    return "\n".join([*parts, "</section>"])


def scale_bar(width: float) -> float:
    """Return a round length of about a quarter of a width, in its unit: 1, 2 or 5 times a power of ten."""
    decade = 10.0 ** math.floor(math.log10(width / 4))
    return max(step * decade for step in (1, 2, 5) if step * decade <= width / 4 * 1.001)


def _row(planes, figures):
    """Put planes side by side at one scale: widths in proportion, none higher than a screen."""
    widest = _HIGHEST * sum(plane.width for plane in planes) / max(plane.height for plane in planes)
    return f'<div class="planes" style="max-width:{widest + 24:.0f}px">{figures}</div>'


def _colored(planes, layer: ImageLayer):
    figures = "".join(_figure(plane, number, layer) for number, plane in enumerate(planes))
    unit = f" {layer.unit}" if layer.unit else ""
    scale = (
        f'<p class="scale"><span>{layer.low:.3g}</span>'
        f'<img src="{data_uri(layer.scale, "image/png")}" alt="colors from {layer.low:.3g} to {layer.high:.3g}{unit}">'
        f"<span>{layer.high:.3g}{unit}</span></p>"
    )
    return _row(planes, figures) + scale


def _figure(plane: Plane, number: int, layer: ImageLayer, after: ImageLayer | None = None):
    images = [_image(plane, number, layer, "before" if after else "only")]
    if after:
        images += [_image(plane, number, after, "after"), _TAGS]
    caption = f"{plane.axis} = {plane.index} ({plane.position:.1f} Å); {plane.across} to the right, {plane.up} up"
    color = "" if after else " color"
    return (
        f'<figure style="flex:{plane.width} 1 0">'
        f'<div class="stack{color}" style="aspect-ratio:{plane.width}/{plane.height}">{"".join(images)}'
        f"{_overlay(plane)}</div><figcaption>{caption}</figcaption></figure>"
    )


def _image(plane, number, layer, kind):
    source = data_uri(layer.images[number], "image/png")
    return f'<img class="{kind}" src="{source}" alt="{escape(layer.name)}, plane perpendicular to {plane.axis}">'


def _overlay(plane):
    """Draw the mask's edge and a scale bar over the images, in their pixels."""
    width, height = plane.width, plane.height
    edge = "".join(
        f"M{' '.join(f'{x:.1f},{y:.1f}' for x, y in polygon)}" for polygon in plane.outline if len(polygon) > 1
    )
    length = scale_bar(width * plane.pixel)
    x, y, thick = 0.04 * width, 0.95 * height, 0.012 * width
    return (
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true"><path class="edge" d="{edge}"/>'
        f'<rect class="bar" x="{x:.2f}" y="{y:.2f}" width="{length / plane.pixel:.2f}" height="{thick:.2f}"/>'
        f'<text x="{x:.2f}" y="{y - 1.2 * thick:.2f}" font-size="{0.05 * width:.2f}" '
        f'stroke-width="{0.006 * width:.2f}">{length:g} Å</text></svg>'
    )


class PageContent(NamedTuple):
    """Everything that a page shows.

    Attributes:
        name: of the denoised map.
        half_maps: names of the two half-maps.
        numbers: what `crefjax.report.measure.report_numbers` returns.
        figures: drawn from the numbers.
        slices: through the maps.
        viewer: all planes and surfaces of the maps.
        header: rows of the two headers.
        files: descriptions of the other files of the report's folder, by their names.
        record: further entries of `report.json`: `crefjax`, `versions`, `created`, `inputs`, `parameters`, `local`.
    """

    name: str
    half_maps: tuple[str, str]
    numbers: dict
    figures: list[RenderedFigure]
    slices: Slices
    viewer: Viewer
    header: list[HeaderRow]
    files: dict[str, str]
    record: dict


def page(content: PageContent) -> str:
    """Return the text of `index.html`; whatever comes from files and paths is escaped."""
    title = f"{content.name}: what can be trusted"
    sections = [
        warnings_section(content.numbers),
        use_section(content.numbers["use"]),
        _key_numbers(content.numbers),
        slices_section(content.slices, content.record["local"]),
        *viewer_sections(content.viewer),
        _figures(content),
        _header_table(content),
        _notes(content.numbers["notes"]),
        _files(content.files),
        _record(content.record),
    ]
    footer = (
        f"crefjax {escape(content.record['crefjax'])}, {escape(content.record['created'])}. This page is one file: it "
        "can be moved, mailed, and opened without a network; the links to other files need the folder that it came in."
    )
    scripts = f"<script>{asset('report.js')}</script>{viewer_scripts(content.viewer)}"
    return document(title, _top(content), sections, footer, scripts)


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
            "RMSE of FSC(denoised, full)² and C_ref² over all shells; residual noise and added structure can cancel in "
            "it",
        )
    )
    for key, title in (("signal_kept", "Signal kept"), ("noise_kept", "Noise kept")):
        if numbers[key] is not None:
            entries.append(_kept(numbers, key, title))
    if numbers["gain"] is not None:
        meaning = "factor of the denoised half-maps before bias was computed"
        entries.append(("Gain", _number(numbers["gain"]), meaning))
    if numbers["symmetry"] is not None:
        entries.append(_symmetry(numbers["symmetry"]))
    mask = numbers["mask"]
    volume = "unknown" if mask["volume"] is None else _volume(mask["volume"])
    share = "" if mask["share"] is None else f"{mask['share']:.1%} of the box, {mask['from']}"
    entries.append(("Mask", volume, share))
    rows = "".join(
        f"<div><dt>{escape(title)}</dt><dd>{escape(value)}<small>{escape(meaning)}</small></dd></div>"
        for title, value, meaning in entries
    )
    return f'<section id="numbers"><h2>In numbers</h2><dl class="numbers">{rows}</dl></section>'


def _resolution(numbers, threshold):
    resolution = numbers["resolution"][f"fsc_{threshold}"]
    return (
        f"Resolution, FSC {threshold}",
        "unknown" if resolution["angstrom"] is None else f"{resolution['angstrom']:.2f} Å",
        "of the noisy half-maps, masked" if resolution["crossed"] else "Nyquist limit: the FSC never falls below it",
    )


def _kept(numbers, key, title):
    """Take the median share of amplitude over the trusted shells, up to the resolution of the half-maps."""
    resolution = numbers["resolution"]["fsc_0.143"]["angstrom"]
    estimate = numbers[key]
    values = sorted(
        value
        for value, trusted, frequency in zip(estimate["value"], estimate["trusted"], numbers["frequency"], strict=True)
        if trusted and value is not None and resolution and 0 < frequency * resolution <= 1
    )
    if not values:
        return title, "unknown", "no shell in which it can be measured"
    return title, f"{values[len(values) // 2]:.0%}", f"of its amplitude; median of shells up to {resolution:.3g} Å"


def _symmetry(symmetry):
    """Describe how symmetric the maps were before they were averaged."""
    return (
        f"Symmetry {symmetry['group']}",
        "unknown" if symmetry["input"] is None else f"{symmetry['input']:.2f}",
        f"of the input's signal up to {symmetry['resolution']:.3g} Å is symmetric ({symmetry['axis']}), and "
        f"{symmetry['output']:.2f} of the network's output; averaged over {symmetry['order']} rotations",
    )


def _volume(value):
    """Convert a volume in Å³ to nm³."""
    return f"{value / 1000:,.0f} nm³" if value >= 1e5 else f"{value / 1000:.3g} nm³"


def _number(value):
    return "unknown" if value is None else f"{value:.3g}"


def _figures(content):
    figures = "".join(
        f"<figure><h3>{escape(figure.title)}</h3>"
        f'<img src="{data_uri(figure.svg, "image/svg+xml")}" alt="{escape(figure.alt)}">'
        f'<figcaption>{escape(figure.caption)} <a href="figures/{figure.name}.png">PNG</a> '
        f'<a href="figures/{figure.name}.svg">SVG</a></figcaption></figure>'
        for figure in content.figures
    )
    open_question = ""
    if content.numbers["variances"] is None:
        open_question = (
            '<div class="box open"><h2>What stays open</h2><p>How much of the denoised map is signal, residual noise, '
            "and bias cannot be measured, because no denoised half-maps were given: a single denoised map cannot show "
            "which of its details would appear again with other noise. Denoise each half-map alone, with the settings "
            "of the full map, and give both with <code>--denoised-halves</code>.</p></div>"
        )
    return f'<section id="curves"><h2>Shell by shell</h2><div class="figures">{figures}</div>{open_question}</section>'


def _header_table(content):
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
        "<caption>The header decides where programs place a map. If size, voxel size, or origin differ, the two maps "
        "do not overlay.</caption>"
        f'<thead><tr><th scope="col">Entry</th><th scope="col">{escape(content.half_maps[0])}</th>'
        f'<th scope="col">{escape(content.name)}</th><th scope="col">Remark</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _notes(notes):
    if not notes:
        return ""
    return f'<section id="notes"><h2>Notes</h2>{_list(notes)}</section>'


def _files(files):
    rows = "".join(
        f'<li><a href="{_link(name)}">{escape(name)}</a>: {escape(description)}</li>'
        for name, description in files.items()
    )
    return f'<section id="files"><h2>Files</h2><ul>{rows}</ul></section>'


def _link(name):
    return escape("./" + quote(name))  # ./, or a name such as `a:b.mrc` would be an address elsewhere


def _record(record):
    inputs = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(file["path"])}</td><td>{file["bytes"]:,}</td>'
        f'<td class="hash">{escape(file["sha256"])}</td></tr>'
        for name, file in record["inputs"].items()
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
