"""The report's folder: page, figures, numbers, and a script for ChimeraX with the full map that it shows."""

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from crefjax import __version__
from crefjax.errors import path_error
from crefjax.io.files import COMPRESSED_SUFFIXES, check_output_folder, sha256
from crefjax.io.maps import full_map, write_map
from crefjax.report import chimerax
from crefjax.report.figures import draw_figures
from crefjax.report.html import Content, header_rows, page
from crefjax.report.slices import cut_slices
from crefjax.utils.atomic import atomic_directory

PAGE, NUMBERS, SCRIPT, FULL_MAP = "index.html", "report.json", "view.cxc", "full_map.mrc"
LOCAL = ("local_agreement.mrc", "local_change.mrc")

_WHAT = {
    NUMBERS: "every curve and number, warnings, checksums of the inputs, versions, parameters",
    SCRIPT: "for ChimeraX: the maps at contours that enclose the same volume",
    FULL_MAP: "the mean of the half-maps, for the script",
    "denoised_map.mrc": "a copy of the denoised map, for the script",
    LOCAL[0]: "local agreement, 0 to 1",
    LOCAL[1]: "local change, 0 to 1",
}


def check_report_folder(folder, *, overwrite: bool = False, inputs=(), outputs=()) -> None:
    """Checks, before long work, that a report can be written at `folder`; writes nothing.

    A folder that is there is replaced only if it is empty, or, with `overwrite`, if it holds an earlier report and
    nothing else.

    Args:
        folder: of the report.
        overwrite: whether an earlier report may be replaced.
        inputs: paths of files that are read; none may lie in the folder.
        outputs: paths of files that are written beside the report; none may lie in the folder, or be it.

    Raises:
        UserError: something is in the way, or the parent folder is missing or not writable.
    """
    check_output_folder(folder, "a report", NUMBERS, overwrite=overwrite, inputs=inputs, outputs=outputs)
    if not (folder := Path(folder)).is_dir() or not any(folder.iterdir()):
        return
    names = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        names = set(json.loads((folder / NUMBERS).read_text(encoding="utf-8"))["files"])
    if names is None:
        raise path_error(folder, "expected a report to replace, found something else; choose another name")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if others := sorted(found - names):
        raise path_error(
            folder, f"the folder also holds {others[0]}, which is not part of a report; move it away first"
        )


def write_report(
    study, numbers: dict, folder, *, inputs: Mapping[str, Path], local=None, local_paths=None, overwrite: bool = False
) -> list[Path]:
    """Write a report; all of it appears together, or nothing.

    Args:
        study: `crefjax.report.measure.ReportInputs`; its denoised map's path is where that map lies.
        numbers: what `crefjax.report.measure.account` returns of it.
        folder: to write.
        inputs: files that were read, by what they are, for their checksums.
        local: `crefjax.spectral.local_maps.LocalMaps`, or None.
        local_paths: where agreement and change have been written; None writes them into the folder.
        overwrite: whether an earlier report is replaced.

    Returns:
        the files that were written, the page first.

    Raises:
        UserError: `check_report_folder` refuses the folder, or the disk is full or refuses.
    """
    folder = Path(folder)
    check_report_folder(folder, overwrite=overwrite, inputs=inputs.values())
    folder = Path(os.path.abspath(folder))
    try:
        with atomic_directory(folder) as hidden:
            names = _fill(hidden, folder, study, numbers, inputs, local, local_paths)
    except OSError as error:
        raise path_error(folder, f"cannot be written ({error.strerror or error}); check the disk") from error
    return [folder / name for name in names]


def _fill(hidden, folder, study, numbers, inputs, local, local_paths):
    """Write all files into the hidden folder; gives their names."""
    full = full_map(study.half_map_1.array, study.half_map_2.array)
    names = [PAGE, NUMBERS, *_chimerax(hidden, folder, study, full, local, local_paths)]
    figures = draw_figures(numbers)
    (hidden / "figures").mkdir()
    for figure in figures:
        for kind, content in (("png", figure.png), ("svg", figure.svg)):
            names.append(f"figures/{figure.name}.{kind}")
            (hidden / names[-1]).write_bytes(content)
    record = {
        "crefjax": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "jax": version("jax"),
            "numpy": np.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        "inputs": {name: fingerprint(path) for name, path in inputs.items()},
        "parameters": study.parameters,
        "local": None if local is None else {"window": local.window, "resolution": local.resolution},
    }
    content = Content(
        name=_name(study.denoised, "denoised map"),
        half_maps=(_name(study.half_map_1, "half-map 1"), _name(study.half_map_2, "half-map 2")),
        numbers=numbers,
        figures=figures,
        slices=cut_slices(full, study.denoised.array, study.mask, study.half_map_1.voxel_size, local=_layers(local)),
        header=header_rows(study.half_map_1, study.denoised),
        files={name: _WHAT[name] for name in names if name in _WHAT},
        record=record,
    )
    (hidden / PAGE).write_text(_utf8(page(content)), encoding="utf-8")
    whole = json.dumps(record | numbers | {"files": names}, indent=1, allow_nan=False, ensure_ascii=False)
    (hidden / NUMBERS).write_text(_utf8(whole) + "\n", encoding="utf-8")
    return names


def _chimerax(hidden, folder, study, full, local, local_paths):
    """Write the script and the maps it needs that lie nowhere else; gives their names."""
    levels = chimerax.matched_levels(full, study.denoised.array, study.mask)
    like = study.half_map_1
    write_map(hidden / FULL_MAP, like.replace_array(full), label=f"crefjax {__version__} mean of the half-maps")
    names, paths = [SCRIPT, FULL_MAP], [FULL_MAP]
    wanted = [(study.denoised.path, study.denoised, "denoised_map.mrc", "denoised map")]
    if local is not None:
        places = local_paths or (None, None)
        for array, place, name in zip((local.agreement, local.change), places, LOCAL, strict=True):
            wanted.append((place, like.replace_array(array), name, name.removesuffix(".mrc").replace("_", " ")))
    for path, map_, name, what in wanted:
        reached = _reached(path, folder)
        if reached is None:
            write_map(hidden / name, map_, label=f"crefjax {__version__} {what}")
            names.append(name)
            reached = name
        paths.append(reached)
    agreement, change = paths[2:] if local is not None else (None, None)
    text = chimerax.script(
        levels, full=paths[0], denoised=paths[1], agreement=agreement, change=change, voxel_size=like.voxel_size
    )
    (hidden / SCRIPT).write_text(text, encoding="utf-8")
    return names


def _utf8(text):
    """A text with file names whose bytes are no UTF-8, those bytes shown as �."""
    return os.fsencode(text).decode("utf-8", "replace")


def _reached(path, folder):
    """The way from the report's folder to a map, or None where ChimeraX could not read it from there."""
    if path is None or Path(path).suffix.lower() in COMPRESSED_SUFFIXES:
        return None
    way = Path(os.path.relpath(os.path.realpath(path), os.path.realpath(folder))).as_posix()
    return way if chimerax.plain(way) else None


def _layers(local):
    return () if local is None else (("local agreement", local.agreement), ("local change", local.change))


def _name(map_, otherwise):
    return otherwise if map_.path is None else Path(map_.path).name


def fingerprint(path) -> dict:
    """Name, SHA-256 and size in bytes of a file, `{"path", "sha256", "bytes"}`."""
    return {"path": Path(path).name, "sha256": sha256(path), "bytes": os.path.getsize(path)}
