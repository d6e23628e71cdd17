"""The folder of a report: page, figures, numbers, and a script for ChimeraX, with the full map that it opens.

The script shows full map, denoised map, and local maps at contours that enclose the same volume.
"""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crefjax import __version__
from crefjax.errors import path_error
from crefjax.io.files import COMPRESSED_SUFFIXES, check_output_folder, sha256
from crefjax.io.header import header_rows
from crefjax.io.maps import read_header, write_map
from crefjax.io.models import AtomicModel
from crefjax.masking.threshold import otsu_threshold
from crefjax.report.figures import draw_figures
from crefjax.report.html import PageContent, page
from crefjax.report.slices import Slices, cut_slices
from crefjax.report.viewer import Viewer
from crefjax.report.volumes import choose_grid, make_local_volume, make_volume
from crefjax.utils.atomic import atomic_directory

PAGE, NUMBERS, SCRIPT, FULL_MAP = "index.html", "report.json", "view.cxc", "full_map.mrc"
DENOISED_MAP, AGREEMENT, CHANGE = "denoised_map.mrc", "local_agreement.mrc", "local_change.mrc"

_DESCRIPTIONS = {
    NUMBERS: "every curve and number, warnings, checksums of the inputs, versions, parameters",
    SCRIPT: "for ChimeraX: the maps at contours that enclose the same volume",
    FULL_MAP: "the mean of the half-maps, for the script",
    DENOISED_MAP: "a copy of the denoised map, for the script",
    AGREEMENT: "local agreement, 0 to 1",
    CHANGE: "local change, 0 to 1",
}
# viridis at 0, 0.25, 0.5, 0.75 and 1: low agreement is dark, high is bright
_PALETTE = "0,#440154:0.25,#3b528b:0.5,#21918c:0.75,#5ec962:1,#fde725"


def check_report_folder(folder, *, overwrite: bool = False, inputs: Iterable = (), outputs: Iterable = ()) -> None:
    """Check, before long work, that a report can be written at `folder`; write nothing.

    An existing folder is replaced only if it is empty, or, with `overwrite`, if it holds an earlier report and nothing
    else.

    Args:
        folder: path of the report.
        overwrite: whether an earlier report may be replaced.
        inputs: paths of files that are read; none may lie in the folder.
        outputs: paths of files that are written beside the report; none may lie in the folder, or be it.

    Raises:
        UserError: something is in the way, or the parent folder is missing or not writable.
    """
    check_output_folder(folder, "a report", NUMBERS, overwrite=overwrite, inputs=inputs, outputs=outputs)
    folder = Path(folder)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if not present:
        return
    report_files = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        report_files = set(json.loads((folder / NUMBERS).read_text(encoding="utf-8"))["files"])
    if report_files is None:
        raise path_error(folder, "expected a report to replace, found something else; choose another name")
    if others := sorted(present - report_files):
        raise path_error(
            folder, f"the folder also holds {others[0]}, which is not part of a report; move it away first"
        )


def write_report(
    inputs,
    numbers: dict,
    folder: Path | str,
    *,
    sources: Mapping[str, Path],
    local=None,
    local_paths=None,
    model: AtomicModel | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a report; it appears complete or not at all.

    Args:
        inputs: `crefjax.report.measure.ReportInputs`; its denoised map's path is where that map lies.
        numbers: what `crefjax.report.measure.report_numbers` returns for them.
        folder: to write.
        sources: the files that were read, for their checksums, by the names that they have in `report.json`.
        local: `crefjax.spectral.local_maps.LocalMaps`, or None.
        local_paths: where agreement and change have been written; None writes them into the folder.
        model: an atomic model to show with the maps.
        overwrite: whether an earlier report is replaced.

    Returns:
        The files that were written, the page first.

    Raises:
        UserError: `check_report_folder` refuses the folder, or the disk is full or refuses.
    """
    folder = Path(folder)
    check_report_folder(folder, overwrite=overwrite, inputs=sources.values())
    folder = Path(os.path.abspath(folder))
    try:
        with atomic_directory(folder) as hidden:
            names = _Writer(hidden, folder, inputs, local, local_paths, model).write(numbers, sources)
    except OSError as error:
        raise path_error(folder, f"cannot be written ({error.strerror or error}); check the disk") from error
    return [folder / name for name in names]


class _Writer:
    """Writes the files of a report into a hidden folder, which then becomes `folder`."""

    def __init__(self, hidden, folder, inputs, local, local_paths, model):
        self.hidden, self.folder, self.inputs, self.local = hidden, folder, inputs, local
        self.local_paths = local_paths or (None, None)
        self.model = model
        self.names = [PAGE, NUMBERS, SCRIPT]

    def write(self, numbers, sources):
        """Write all files; return their names."""
        inputs, local = self.inputs, self.local
        full = inputs.full_map
        levels = self._write_script(full)
        figures = draw_figures(numbers)
        (self.hidden / "figures").mkdir()
        for figure in figures:
            for kind, content in (("png", figure.png), ("svg", figure.svg)):
                self._write(f"figures/{figure.name}.{kind}", content)
        record = {
            "crefjax": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "jax": version("jax"),
                "numpy": np.__version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
            },
            "inputs": {name: file_checksum(path) for name, path in sources.items()},
            "parameters": inputs.parameters,
            "local": None if local is None else {"window": local.window, "resolution": local.resolution},
        }
        slices = self._slices(full)
        content = PageContent(
            name=_file_name(inputs.denoised, "denoised map"),
            half_maps=(_file_name(inputs.half_map_1, "half-map 1"), _file_name(inputs.half_map_2, "half-map 2")),
            numbers=numbers,
            figures=figures,
            slices=slices,
            viewer=self._viewer(full, slices, levels.denoised),
            header=header_rows(_header(inputs.half_map_1), _header(inputs.denoised)),
            files={name: _DESCRIPTIONS[name] for name in self.names if name in _DESCRIPTIONS},
            record=record,
        )
        (self.hidden / PAGE).write_bytes(_utf8(page(content)))
        report = json.dumps(record | numbers | {"files": self.names}, indent=1, allow_nan=False, ensure_ascii=False)
        (self.hidden / NUMBERS).write_bytes(_utf8(report + "\n"))
        return self.names

    def _slices(self, full) -> Slices:
        inputs, local = self.inputs, self.local
        layers = {} if local is None else {"local agreement": local.agreement, "local change": local.change}
        return cut_slices(full, inputs.denoised.array, inputs.mask, inputs.half_map_1.voxel_size, local=layers)

    def _viewer(self, full, slices, contour) -> Viewer:
        inputs, local = self.inputs, self.local
        first = inputs.half_map_1
        grid = choose_grid(full.shape, first.voxel_size, first.origin, inputs.mask)
        agreement = None if local is None else make_local_volume("agreement", local.agreement, inputs.mask, grid)
        return Viewer(
            grid=grid,
            first=make_volume("full map", full, grid),
            second=make_volume("denoised map", inputs.denoised.array, grid),
            agreement=agreement,
            gain=slices.gain,
            offset=slices.offset,
            std=slices.std,
            grays=(slices.before.low, slices.before.high),
            contour=contour,
            model=self.model,
            advice=f"It is for looking; for building, open the maps themselves in ChimeraX, with {SCRIPT}.",
        )

    def _write(self, name, content):
        self.names.append(name)
        (self.hidden / name).write_bytes(content)

    def _write_script(self, full):
        """Write the script for ChimeraX, and the maps that it opens and that lie nowhere else; return its contours."""
        inputs, local = self.inputs, self.local
        template = inputs.half_map_1
        levels = matched_levels(full, inputs.denoised.array, inputs.mask)
        maps = {"full": self._map(FULL_MAP, template.replace_array(full), "mean of the half-maps")}
        maps["denoised"] = self._map(DENOISED_MAP, inputs.denoised, "denoised map", inputs.denoised.path)
        if local is not None:
            for name, array, path in zip(
                (AGREEMENT, CHANGE), (local.agreement, local.change), self.local_paths, strict=True
            ):
                label = name.removesuffix(".mrc").replace("_", " ")
                maps[label.removeprefix("local ")] = self._map(name, template.replace_array(array), label, path)
        script = chimerax_script(levels, **maps, voxel_size=template.voxel_size)
        (self.hidden / SCRIPT).write_text(script, encoding="utf-8")
        return levels

    def _map(self, name, map_, label, path=None):
        """Return the path of a map from the folder; a map that ChimeraX cannot read where it lies is written there."""
        if path is not None and Path(path).suffix.lower() not in COMPRESSED_SUFFIXES:
            relative = Path(os.path.relpath(os.path.realpath(path), os.path.realpath(self.folder))).as_posix()
            if is_plain(relative):
                return relative
        write_map(self.hidden / name, map_, label=f"crefjax {__version__} {label}")
        self.names.append(name)
        return name


def _utf8(text):
    """Encode a text with file names whose bytes are not UTF-8; those bytes become �."""
    return os.fsencode(text).decode("utf-8", "replace").encode("utf-8")


def _header(map_):
    """Return the header as it is in the file: a map that was written has one label more there."""
    return map_.header if map_.path is None else read_header(map_.path)


def _file_name(map_, otherwise):
    return otherwise if map_.path is None else Path(map_.path).name


def file_checksum(path: Path | str) -> dict:
    """Return the name, the SHA-256, and the size in bytes of a file, `{"path", "sha256", "bytes"}`."""
    return {"path": Path(path).name, "sha256": sha256(path), "bytes": os.path.getsize(path)}


class Levels(NamedTuple):
    """Contours of two maps that enclose the same number of voxels.

    Attributes:
        full, denoised: densities.
        voxels: above the level, in each.
    """

    full: float
    denoised: float
    voxels: int


def matched_levels(full: np.ndarray, denoised: np.ndarray, mask: np.ndarray) -> Levels:
    """Choose a contour for the denoised map, and the one at which the full map encloses the same volume.

    The level of the denoised map is that which best separates its voxels within the mask into solvent and particle
    (Otsu's threshold). Voxels above it are counted in the whole box, as a surface encloses them.

    Args:
        full: `(z, y, x)`.
        denoised: the same shape.
        mask: the same shape, 0 to 1.
    """
    inside = mask > 0.5
    level = otsu_threshold(denoised[inside] if inside.any() else denoised.ravel())
    voxels = sum(int(np.count_nonzero(slab > level)) for slab in denoised)
    return Levels(level_of_volume(full, voxels), level, voxels)


def level_of_volume(array: np.ndarray, voxels: int) -> float:
    """Return a level above which a map has a number of voxels, or, if many are equal, as nearly as possible.

    Args:
        array: `(z, y, x)`.
        voxels: the number, at most that of all voxels.
    """
    below = array.size - voxels
    if below <= 0:
        return float(np.nextafter(array.min(), -np.inf, dtype=array.dtype))
    if voxels <= 0:
        return float(array.max())
    values = np.partition(array, (below - 1, below), axis=None)
    return (float(values[below - 1]) + float(values[below])) / 2


def chimerax_script(
    levels: Levels,
    *,
    full: str,
    denoised: str,
    agreement: str | None = None,
    change: str | None = None,
    voxel_size: float,
) -> str:
    """Return the text of a `.cxc` file.

    Args:
        levels: of full and denoised map.
        full: path of the full map, from the script's folder.
        denoised: path of the denoised map.
        agreement: path of the local map of agreement, or None.
        change: path of the local map of change, or None.
        voxel_size: Å.
    """
    volume = levels.voxels * voxel_size**3
    # No semicolon in a comment: it ends a command.
    lines = [
        "# ChimeraX: open this file in an empty session. The maps are found from its folder.",
        "# #1 is the full map (mean of the half-maps), #2 the denoised map.",
        f"# Both contours enclose the same volume: {levels.voxels} voxels, {volume:.0f} cubic Angstrom. The level of",
        "# the denoised map best separates its voxels within the mask into particle and solvent (Otsu 1979). As many",
        "# voxels of the full map are above its own level.",
        f"open {quoted(full)}",
        f"open {quoted(denoised)}",
        'rename #1 "full map"',
        'rename #2 "denoised map"',
        f"volume #1 style surface step 1 level {levels.full:.9g} color #9a9a9a transparency 0.6",
        f"volume #2 style surface step 1 level {levels.denoised:.9g} color #4c9fd6",
    ]
    if agreement is not None:
        lines += _local_lines(agreement, change)
    lines += ["set bgColor white", "lighting soft", "view", "# One map alone: hide #1 models"]
    return "\n".join(lines) + "\n"


def _local_lines(agreement, change):
    lines = [
        "# #3 is the local agreement: 1 (bright) where the half-maps confirm what the denoised ones show, 0 (dark)",
        "# where they confirm nothing of it.",
        f"open {quoted(agreement)}",
        'rename #3 "local agreement"',
        "volume #3 hide",
    ]
    if change is not None:
        lines += [
            "# #4 is the local change: 0 where no structure was added or removed, 1 where all of it was.",
            f"# To color by it instead: color sample #2 map #4 palette {_PALETTE} key true",
            f"open {quoted(change)}",
            'rename #4 "local change"',
            "volume #4 hide",
        ]
    return [*lines, f"color sample #2 map #3 palette {_PALETTE} key true"]


def is_plain(path: str) -> bool:
    """Return whether ChimeraX's command line can take a path between quotation marks."""
    return path.isprintable() and not set(path) & set('"\\')


def quoted(path: str) -> str:
    """Return a path as one word of a ChimeraX command."""
    return f'"{path}"'
