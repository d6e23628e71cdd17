"""The page in which a reader moves through maps: every plane, and surfaces in three dimensions.

Every page is one HTML file that contains everything it shows and loads nothing from elsewhere. `crefjax view` makes one
from one or two maps, without half-maps; the page of a report is in `crefjax.report.html`.
"""

import base64
import functools
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path

import matplotlib
import numpy as np

from crefjax import __version__
from crefjax.io.maps import Map, check_same_grid
from crefjax.io.models import AtomicModel
from crefjax.report.slices import match, png_bytes
from crefjax.report.volumes import NOT_SHOWN, Grid, Volume, choose_grid, make_volume
from crefjax.utils.atomic import atomic_write

# Nothing but the page's own content may be loaded, even if a text from outside should slip through the escaping.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
_PALETTES = {"change": "RdBu", "agreement": "cividis"}
_COLORS = 255  # of a palette
_SAMPLE = 7  # step between the voxels from which the range of the change is found
_AXES = "zyx"
_SCRIPTS = ("libraries/fflate.js", "grays.js", "planes.js", "surfaces.js")
_LIBRARY_END = "//# sourceMappingURL="
_ONLY_ROW = "Shown"
_ROWS = (
    '<span class="wide">Upper row</span><span class="narrow">Left</span>',
    '<span class="wide">Lower row</span><span class="narrow">Right</span>',
)
_NO_WEBGL = (
    "This browser offers no WebGL, so the surfaces cannot be drawn. Everything else on the page works without it. In a "
    "remote desktop, WebGL is often missing; copy the page to another computer to see the surfaces."
)
_CONTOUR = 3.0  # standard deviations above the mean, where the surfaces start


def document(title: str, top: str, sections: Iterable[str], footer: str, scripts: str) -> str:
    """Return the text of a page.

    Args:
        title: of the window; escaped here.
        top: HTML above the sections.
        sections: HTML; empty ones are left out.
        footer: HTML.
        scripts: HTML at the end, with the scripts.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="crefjax">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{asset("report.css")}</style>
</head>
<body>
{top}
<main>
{chr(10).join(section for section in sections if section)}
</main>
<footer>{footer}</footer>
{scripts}
</body>
</html>
"""


def asset(name: str) -> str:
    """Return the text of a style sheet or a script; they are inlined, so that the page is self-contained."""
    return resources.files("crefjax.report").joinpath("assets", name).read_text(encoding="utf-8")


def data_uri(content: bytes, kind: str) -> str:
    """Return an address that contains the bytes of a file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


@dataclass(frozen=True, eq=False)
class Viewer:
    """Maps and planes that a reader can look through.

    Attributes:
        grid: of all volumes.
        first: the full map, or the only one.
        second: the denoised map, or the other one; None for one map alone.
        agreement: local agreement, or None.
        gain, offset: by which the second map is matched to the first, `gain * second + offset`.
        std: unit in which the change is given, standard deviation of the first map.
        grays: densities of black and white, of the first map.
        contour: density of the second map, or of the only one, from which the surfaces start.
        model: atomic model, or None.
        advice: sentence on how to look at the maps themselves.
    """

    grid: Grid
    first: Volume
    second: Volume | None
    agreement: Volume | None
    gain: float
    offset: float
    std: float
    grays: tuple[float, float]
    contour: float
    model: AtomicModel | None
    advice: str

    @property
    def volumes(self) -> dict[str, Volume]:
        """The volumes by their roles."""
        found = {"first": self.first, "second": self.second, "agreement": self.agreement}
        return {key: volume for key, volume in found.items() if volume is not None}

    def layers(self) -> list[dict]:
        """Return the layers that a plane can show, for JSON: `key`, `name`, `palette`, `low`, `high`, and `unit`."""
        low, high = self.grays
        grays = {"palette": "gray", "low": low, "high": high, "unit": ""}
        layers = [{"key": "first", "name": self.first.name} | grays]
        if self.second is not None:
            layers.append({"key": "second", "name": self.second.name} | grays)
            limit = _highest_change(self)
            layers.append(_colored("change", "change", -limit, limit, "σ"))
        if self.agreement is not None:
            layers.append(_colored("agreement", self.agreement.name, 0.0, 1.0, ""))
        return layers


def _colored(key, name, low, high, unit):
    return {"key": key, "name": name, "palette": key, "low": low, "high": high, "unit": unit}


def _highest_change(viewer):
    """Return the magnitude of the change that 99.7 % of the voxels do not exceed, in standard deviations."""
    first, second = (
        volume.low + volume.levels.ravel()[::_SAMPLE].astype(np.float64) * (volume.high - volume.low) / volume.highest
        for volume in (viewer.first, viewer.second)
    )
    change = np.abs(viewer.gain * second + viewer.offset - first) / viewer.std
    return max(float(np.percentile(change, 99.7)), 1e-6)


def _palette(name):
    if name == "gray":
        shades = np.round(np.linspace(0, 255, _COLORS)).astype(np.uint8)
        return np.stack([shades] * 3, axis=1)
    return matplotlib.colormaps[_PALETTES[name]](np.linspace(0, 1, _COLORS), bytes=True)[:, :3]


def viewer_sections(viewer: Viewer) -> list[str]:
    """Return the sections of the page: every plane, and surfaces."""
    return [_planes(viewer), _surfaces(viewer)]


def viewer_scripts(viewer: Viewer) -> str:
    """Return the data of the viewer and its scripts, to stand at the end of the page.

    Volumes, model, and the library that draws surfaces are base64 of zlib streams in text blocks, which no browser
    executes or loads.
    """
    texts = [
        _block(f"volume-{key}", _differences(volume.levels), zlib.Z_FILTERED) for key, volume in viewer.volumes.items()
    ]
    if viewer.model is not None:
        texts.append(_block("model-text", viewer.model.cif.encode()))
    texts.append(_library())
    data = json.dumps(_data(viewer), ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    texts.append(f'<script type="application/json" id="viewer-data">{data}</script>')
    texts += [f"<script>{asset(name)}</script>" for name in _SCRIPTS]
    return "\n".join(texts)


def _block(name, content, strategy=zlib.Z_DEFAULT_STRATEGY):
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    packed = base64.b64encode(packer.compress(content) + packer.flush()).decode("ascii")
    return f'<script type="text/plain" id="{name}">{packed}</script>'


@functools.cache
def _library():
    return _block("library-ngl", asset("libraries/ngl.js").partition(_LIBRARY_END)[0].encode())


def _differences(levels):
    """Return levels as differences along x and y, modulo 256, which take less space."""
    along_x = np.diff(levels, axis=2, prepend=np.uint8(0))
    return np.diff(along_x, axis=1, prepend=np.uint8(0)).tobytes()


def _data(viewer):
    layers = viewer.layers()
    return {
        "grid": viewer.grid._asdict() | {"bin": viewer.grid.bin, "first": viewer.grid.first},
        "volumes": {
            key: {"name": volume.name, "low": volume.low, "high": volume.high, "highest": volume.highest}
            for key, volume in viewer.volumes.items()
        },
        "gain": viewer.gain,
        "offset": viewer.offset,
        "std": viewer.std,
        "layers": layers,
        "palettes": {name: _palette(name).tobytes().hex() for name in {layer["palette"] for layer in layers}},
        "position": _position(viewer),
        "contour": viewer.contour,
        "model": viewer.model is not None,
    }


def _position(viewer):
    """Return the planes in which most voxels are above the contour, `(z, y, x)`."""
    volume = viewer.second or viewer.first
    level = (viewer.contour - volume.low) / (volume.high - volume.low) * volume.highest
    above = volume.levels > level
    if not above.any():
        return [side // 2 for side in above.shape]
    return [int(np.argmax(above.sum(axis=tuple({0, 1, 2} - {axis})))) for axis in range(3)]


def _planes(viewer):
    layers = viewer.layers()
    rows = ["first"] if viewer.second is None else ["first", "second"]
    titles = [_ONLY_ROW] if len(rows) == 1 else _ROWS
    choices = "".join(_choice(layers, row, number, titles[number]) for number, row in enumerate(rows))
    if len(layers) == 1:
        choices = choices.replace('class="segments"', 'class="segments" hidden')
    axes = "".join(_axis(viewer.grid, axis, rows) for axis in range(3))
    scales = "".join(_scale(layer) for layer in layers if layer["palette"] != "gray")
    return (
        f'<section id="planes"><h2>Every plane</h2><p>{_explanation(viewer)}</p>'
        "<p>Click in a plane to move the other two. In a plane that was clicked, the arrow keys move them by one voxel "
        "(with Shift by ten), and Page Up and Page Down move the plane itself.</p>"
        f'<div class="controls rows">{choices}</div>{asset("grays.html")}<div class="axes">{axes}</div>'
        f'<p class="readout" aria-live="polite"></p>{scales}</section>'
    )


def _explanation(viewer):
    grid = viewer.grid

    def sides(shape):
        return " × ".join(str(side) for side in shape[::-1])

    text = f"The whole box of {sides(grid.box)} voxels"
    if grid.is_cropped:
        text = f"The part of the box around the mask, {sides(grid.part)} of {sides(grid.box)} voxels"
    binned = f", binned to {sides(grid.shape)}" if grid.is_binned else ""
    change = ""
    if viewer.second is not None:
        matched = f"{viewer.gain:.4g} × {escape(viewer.second.name)} {'−' if viewer.offset < 0 else '+'} "
        change = (
            f"Change is {escape(viewer.second.name)} − {escape(viewer.first.name)}, in standard deviations σ of the "
            f"latter, after the two were matched ({matched}{abs(viewer.offset):.4g}): blue was added, red was removed. "
        )
    return f"{text}{binned} (x × y × z), in at most 256 levels. {change}{viewer.advice}"


def _choice(layers, row, number, title):
    chosen = min(number, len(layers) - 1)
    options = "".join(
        f'<label><input type="radio" name="row-{row}" value="{place}"{" checked" if place == chosen else ""}>'
        f"<span>{escape(layer['name'])}</span></label>"
        for place, layer in enumerate(layers)
    )
    return f'<fieldset class="segments"><legend>{title}</legend>{options}</fieldset>'


def _axis(grid, axis, rows):
    up, across = (other for other in range(3) if other != axis)
    name = _AXES[axis]
    ratio = f"{grid.part[across]}/{grid.part[up]}"
    views = "".join(
        f'<div class="view" data-axis="{axis}" data-row="{row}" style="aspect-ratio:{ratio}">'
        f'<canvas tabindex="0" role="img" aria-label="plane perpendicular to {name}"></canvas>'
        '<span class="tag" aria-hidden="true"></span></div>'
        for row in rows
    )
    return (
        f'<figure style="flex:{grid.part[across]} 1 0"><div class="pair">{views}</div>'
        f'<div class="slide"><label for="plane-{name}">{name}</label>'
        f'<input type="range" id="plane-{name}" min="0" max="{grid.shape[axis] - 1}" step="1" '
        f'aria-label="plane along {name}"><output for="plane-{name}"></output></div>'
        f"<figcaption>{_AXES[across]} to the right, {_AXES[up]} up</figcaption></figure>"
    )


def _scale(layer):
    colors = np.concatenate([_palette(layer["palette"]), np.zeros((NOT_SHOWN + 1 - _COLORS, 3), np.uint8)])
    opaque = np.concatenate([colors, np.full((len(colors), 1), 255, np.uint8)], axis=1)
    image = png_bytes(np.arange(_COLORS, dtype=np.uint8)[np.newaxis], opaque)
    low, high = (f"{layer[end]:.3g}".replace("-", "−") for end in ("low", "high"))
    unit = f" {layer['unit']}" if layer["unit"] else ""
    return (
        f'<p class="scale" data-key="{layer["key"]}" hidden><span>{escape(layer["name"])} {low}</span>'
        f'<img src="{data_uri(image, "image/png")}" alt="colors from {low} to {high}{unit}">'
        f"<span>{high}{unit}</span></p>"
    )


def _surfaces(viewer):
    colored = [layer for layer in viewer.layers() if layer["palette"] != "gray"]
    colors = [("plain", "one color"), *((layer["key"], layer["name"]) for layer in colored)]
    chosen = colors[-1][0] if viewer.agreement is not None else "plain"
    style = "transparent" if viewer.model is not None else "solid"
    styles = [("solid", "solid"), ("transparent", "transparent"), ("mesh", "mesh")]
    selects = [_select("color", "Color", colors, chosen), _select("style", "Surface", styles, style)]
    if viewer.model is not None:
        models = [("ribbons", "ribbons"), ("sticks", "sticks"), ("none", "hidden")]
        selects.append(_select("model", "Model", models, "ribbons"))
    volumes = {key: volume for key, volume in viewer.volumes.items() if key != "agreement"}
    panels = "".join(
        f'<figure><div class="panel" data-key="{key}" tabindex="0" role="img" '
        f'aria-label="surface of {escape(volume.name)}"></div><figcaption>{escape(volume.name)}</figcaption></figure>'
        for key, volume in volumes.items()
    )
    scales = "".join(_scale(layer) for layer in colored)
    several = "Both contours enclose the same volume, and both maps turn together. " if len(volumes) > 1 else ""
    return (
        f'<section id="surfaces"><h2>In three dimensions</h2><p>{several}Drag to turn; click, then scroll to zoom, or '
        f"use the arrow keys, + and −. {_about_model(viewer)}</p>"
        f'<p class="box open problem" hidden>{_NO_WEBGL}</p><div class="viewer" hidden>'
        '<div class="controls"><div class="slide"><label for="surface-contour">contour</label>'
        '<input type="range" id="surface-contour" step="0.25"></div>'
        f'{"".join(selects)}<label><input type="checkbox" id="surface-dust" checked> hide small parts</label>'
        '<button type="button" id="surface-reset">reset view</button>'
        '<output for="surface-contour"></output></div>'
        f'<div class="panels">{panels}</div>{scales}</div></section>'
    )


def _about_model(viewer):
    if viewer.model is None:
        return ""
    part = " (its backbone)" if viewer.model.backbone else ""
    return f"The model is {escape(viewer.model.name)}{part}, where its coordinates and the header place it."


def _select(name, title, options, chosen):
    entries = "".join(
        f'<option value="{value}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
        for value, text in options
    )
    return f'<label>{title} <select id="surface-{name}">{entries}</select></label>'


def make_viewer(first: Map, second: Map | None = None, model: AtomicModel | None = None) -> Viewer:
    """Prepare one or two maps for a page.

    The second map is matched to the first by the gain and the offset that fit it best over the whole box, as two
    programs may write one map in different units. Surfaces start at three standard deviations above the mean.

    Args:
        first: a map.
        second: another on its grid, or None.
        model: to show with them, or None.

    Raises:
        UserError: the maps lie on different grids.
    """
    gain, offset, std = 1.0, 0.0, float(first.array.std(dtype=np.float64)) or 1.0
    if second is not None:
        check_same_grid(first, second, "two maps")
        gain, offset, std = match(first.array.ravel(), second.array.ravel())
    grid = choose_grid(first.array.shape, first.voxel_size, first.origin)
    names = _names(first, second)
    last = second or first
    return Viewer(
        grid=grid,
        first=make_volume(names[0], first.array, grid),
        second=None if second is None else make_volume(names[1], second.array, grid),
        agreement=None,
        gain=gain,
        offset=offset,
        std=std,
        grays=_gray_range(first.array),
        contour=float(last.array.mean(dtype=np.float64) + _CONTOUR * last.array.std(dtype=np.float64)),
        model=model,
        advice="It is for looking; for building, open the maps themselves, for example in ChimeraX.",
    )


def _names(first, second):
    """Return the names of the files, or their paths if the names are the same."""
    paths = [Path(map_.path) if map_.path else Path("map") for map_ in (first, second) if map_ is not None]
    names = [path.name for path in paths]
    return [str(path) for path in paths] if len(set(names)) < len(names) else names


def _gray_range(array):
    low, high = np.percentile(array, (1, 99.8))
    return float(low), float(high) if high > low else float(low) + 1.0


def write_view(path: Path | str, viewer: Viewer, *, overwrite: bool = False) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        viewer: what to show.
        overwrite: whether an existing file is replaced.

    Raises:
        UserError: the file exists, or the file system refused.
    """
    content = view_page(viewer).encode("utf-8", "replace")
    with atomic_write(Path(path), needed=len(content), overwrite=overwrite, compress=False) as stream:
        stream.write(content)


def view_page(viewer: Viewer) -> str:
    """Return the text of the page; whatever comes from files and paths is escaped."""
    names = [volume.name for key, volume in viewer.volumes.items() if key in ("first", "second")]
    title = " and ".join(names)
    grid = viewer.grid
    box = " × ".join(str(side) for side in grid.box[::-1])
    origin = ", ".join(f"{value:.6g}" for value in grid.origin)
    model = "" if viewer.model is None else f"; model: {escape(viewer.model.name)}"
    top = (
        f'<header class="top"><div><p class="what">crefjax view</p><h1>{escape(title)}</h1>'
        f"<p>{box} voxels of {grid.voxel_size:.4g} Å; first voxel at ({origin}) Å{model}</p></div></header>"
    )
    footer = (
        f"crefjax {escape(__version__)}. This page is one file: it can be moved, mailed, and opened without a network."
    )
    return document(title, top, viewer_sections(viewer), footer, viewer_scripts(viewer))
