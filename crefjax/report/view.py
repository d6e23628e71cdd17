"""The page of one or two maps: every plane, surfaces, and an atomic model, without half-maps."""

from html import escape
from pathlib import Path

import numpy as np

from crefjax import __version__
from crefjax.io.maps import Map, check_same_grid
from crefjax.report.document import document
from crefjax.report.model import Model
from crefjax.report.slices import match
from crefjax.report.viewer import Viewer, viewer_scripts, viewer_sections
from crefjax.report.volumes import choose_grid, make_volume
from crefjax.utils.atomic import atomic_write

_CONTOUR = 3.0  # standard deviations above the mean, where the surfaces start


def make_viewer(first: Map, second: Map | None = None, model: Model | None = None) -> Viewer:
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
