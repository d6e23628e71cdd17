"""The slices as they stand in the page: a slider from before to after, coloured layers with their scales."""

import base64
import math
from html import escape

from crefjax.report.slices import Layer, Plane, Slices

_TALLEST = 560  # CSS pixels; a filament's planes would be taller than a screen

_CHANGE = (
    "What denoising changed: the difference of the two, |denoised − full|, in standard deviations σ of the full map "
    "within the mask. If this looks like noise alone, noise was removed. Where the particle's shape shows, its "
    "structure was changed too, if only by sharpening or smoothing."
)
LOCAL_WORDS = {
    "local agreement": "How well the noisy half-maps confirm, around each voxel, what the denoised ones show: 1 coarse "
    "and fine, as far as their noise lets them; 0.5 the coarse part alone, as of smeared or flexible density; 0 "
    "nothing of it. Do not believe what is dark here.",
    "local change": "How much of the structure around each voxel was added or removed: 0 nothing of it, 1 all. That "
    "noise is gone, or that the whole map is sharper or smoother, is no change here.",
}


def slices_section(slices: Slices, local: dict | None) -> str:
    """The section of the page with the three planes: before and after, the change, and local maps where there are.

    Args:
        slices: to show.
        local: `window` and `resolution` of the local maps, Å, or None.
    """
    matched = f"{slices.gain:.4g} × denoised {'−' if slices.offset < 0 else '+'} {abs(slices.offset):.4g}"
    before_after = "".join(
        _figure(plane, number, slices.before, slices.after) for number, plane in enumerate(slices.planes)
    )
    parts = [
        '<section id="slices"><h2>Before and after</h2>',
        "<p>Three planes, through where the particle has most; the part of the box around the mask. Both maps are in "
        f"the same greys, {slices.before.low:.3g} to {slices.before.high:.3g}, after the denoised map was matched to "
        f"the full map by least squares within the mask ({matched}). The orange line is the mask's edge at 0.5.</p>",
        _CONTROLS,
        _row(slices.planes, before_after),
        f"<h3>Change</h3><p>{_CHANGE}</p>",
        _coloured(slices.planes, slices.change),
    ]
    for layer in slices.local:
        told = f"Moving window: {local['window']:.3g} Å, full width at half maximum."
        if local["resolution"] is None:
            told = "The half-maps agree too little for anything to be told: it is 0 everywhere."
        parts.append(f"<h3>{escape(layer.name.capitalize())}</h3><p>{escape(LOCAL_WORDS[layer.name])} {told}</p>")
        parts.append(_coloured(slices.planes, layer))
    return "\n".join([*parts, "</section>"])


def data_uri(content: bytes, kind: str) -> str:
    """The bytes of a file as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def scale_bar(width: float) -> float:
    """A round length of about a quarter of a width, in its unit: 1, 2 or 5 times a power of ten."""
    decade = 10.0 ** math.floor(math.log10(width / 4))
    return max(step * decade for step in (1, 2, 5) if step * decade <= width / 4 * 1.001)


_CONTROLS = """<div class="controls">
<div class="slide"><label for="slider">full map</label>
<input type="range" id="slider" min="0" max="100" step="1" value="50" aria-describedby="said"
 aria-label="from the full map (before) to the denoised map (after)">
<span aria-hidden="true">denoised</span></div>
<output id="said" for="slider">50 % denoised</output>
<fieldset><legend>Slider</legend>
<label><input type="radio" name="how" id="wipe" checked> wipes</label>
<label><input type="radio" name="how" id="fade"> fades</label></fieldset>
<label><input type="checkbox" id="edge" checked> mask's edge</label>
</div>"""


_TAGS = (
    '<span class="divider"></span><span class="tag ends" aria-hidden="true">denoised</span>'
    '<span class="tag begins" aria-hidden="true">full map</span>'
)


def _row(planes, figures):
    """Planes side by side at one scale: their widths are in proportion, none is taller than a screen."""
    widest = _TALLEST * sum(plane.width for plane in planes) / max(plane.height for plane in planes)
    return f'<div class="planes" style="max-width:{widest + 24:.0f}px">{figures}</div>'


def _coloured(planes, layer: Layer):
    figures = "".join(_figure(plane, number, layer) for number, plane in enumerate(planes))
    unit = f" {layer.unit}" if layer.unit else ""
    scale = (
        f'<p class="scale"><span>{layer.low:.3g}</span>'
        f'<img src="{data_uri(layer.scale, "image/png")}" alt="colours from {layer.low:.3g} to {layer.high:.3g}{unit}">'
        f"<span>{layer.high:.3g}{unit}</span></p>"
    )
    return _row(planes, figures) + scale


def _figure(plane: Plane, number: int, layer: Layer, after: Layer | None = None):
    images = [_image(plane, number, layer, "before" if after else "only")]
    if after:
        images += [_image(plane, number, after, "after"), _TAGS]
    caption = f"{plane.axis} = {plane.index} ({plane.position:.1f} Å); {plane.across} to the right, {plane.up} up"
    colour = "" if after else " colour"
    return (
        f'<figure style="flex:{plane.width} 1 0">'
        f'<div class="stack{colour}" style="aspect-ratio:{plane.width}/{plane.height}">{"".join(images)}'
        f"{_overlay(plane)}</div><figcaption>{caption}</figcaption></figure>"
    )


def _image(plane, number, layer, kind):
    source = data_uri(layer.images[number], "image/png")
    return f'<img class="{kind}" src="{source}" alt="{escape(layer.name)}, plane perpendicular to {plane.axis}">'


def _overlay(plane):
    """Mask's edge and scale bar, drawn over the images in their pixels."""
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
