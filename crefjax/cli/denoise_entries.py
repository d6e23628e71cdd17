"""`crefjax denoise --entries`: many pairs in one process, so that boxes of one shape are compiled only once.

Every entry gets a folder of its own name, which appears only when it is complete, with `run.json`, the record of the
run. An entry that has such a folder is finished and not denoised again; one that cannot be denoised is reported in one
line and skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crefjax import __version__
from crefjax.cli.common import out_of_memory
from crefjax.cli.denoise import DenoiseJob, check_job, run_job
from crefjax.cli.messages import (
    FORMAT_VERSION,
    as_options,
    check_json,
    current_messages,
    json_text,
    log,
    output_json,
    part,
    result,
)
from crefjax.errors import UserError, path_error
from crefjax.io.files import check_output_folder, file_state, is_same_file
from crefjax.utils.atomic import atomic_directory, write_bytes

if TYPE_CHECKING:
    from crefjax.io.entries import Entry
    from crefjax.weights.store import Weights

OUTPUT = "denoised.mrc"
_DONE, _BEFORE, _SKIPPED = "done", "finished before", "skipped"
RECORD = "run.json"
_INDIFFERENT = ("device", "max_memory")  # settings that do not change the result
_FILES = ("half-map 1", "half-map 2", "mask file")


@dataclass(frozen=True)
class Outcome:
    """The outcome of one entry.

    Attributes:
        name: name of the entry.
        status: `done`, `finished before`, or `skipped`.
        seconds: time that it took in this run.
        record: record of its run, with the paths of its outputs; None if it was skipped.
        error: why it was skipped, or None.
        reason: the same without the file names.
    """

    name: str
    status: str
    seconds: float
    record: dict | None = None
    error: str | None = None
    reason: str = ""


def run_entries(arguments, settings: dict) -> int:
    """Denoise entry folders, print a table, and return 1 if one of them had to be skipped.

    Args:
        arguments: arguments of the command line.
        settings: parameters of `crefjax.inference.request.read_request`.

    Raises:
        UserError: before any work, if two entries have one name, or options or weights cannot be used.
    """
    from crefjax.spectral.symmetry import point_group
    from crefjax.weights.store import load_weights

    output = Path(arguments.output)
    names = entry_names(arguments.entries)
    _check_options(arguments, output, names)
    if arguments.symmetry is not None:
        point_group(arguments.symmetry)  # raises, if there is no such group
    weights = load_weights(arguments.weights)
    _make_output(arguments, output)
    outcomes = []
    for number, (name, folder) in enumerate(names.items(), 1):
        with part(name):
            log(f"entry {number} of {len(names)}")
            outcomes.append(_denoise_entry(name, folder, output / name, arguments, settings, weights))
        if outcomes[-1].error is not None:
            log(f"skipped {name}: {outcomes[-1].error}")
    for line in table(outcomes):
        result(line)
    output_json(arguments.json, _content(outcomes))
    return int(any(outcome.status == _SKIPPED for outcome in outcomes))


def entry_names(folders: Sequence[str]) -> dict[str, Path]:
    """Return the folders by the names of their entries, which name the outputs.

    Raises:
        UserError: two entries have the same name.
    """
    names: dict[str, Path] = {}
    for folder in map(Path, folders):
        name = folder.resolve().name
        if name in names:
            raise path_error(
                f"{names[name]} and {folder}",
                f"expected entries of different names, found {name} twice; rename a folder, or denoise them in two "
                "runs with different outputs",
            )
        names[name] = folder
    return names


def _check_options(arguments, output, names):
    """Check what does not depend on the maps."""
    if output.exists() and not output.is_dir():
        raise path_error(output, "expected a folder for the outputs of the entries, found a file; choose another name")
    if arguments.report and (Path(arguments.report).name != arguments.report or arguments.report in ("..", RECORD)):
        raise UserError(
            f"--report: expected the name of a folder, which is made beside each denoised map, found "
            f"{arguments.report}; give a name such as report"
        )
    if arguments.mask not in (None, "auto", "none") and not Path(arguments.mask).is_file():
        raise path_error(arguments.mask, "expected a mask, auto, or none, found no such file; check the path")
    for name, folder in names.items():
        if is_same_file(folder, output / name):
            raise path_error(
                output, f"the output of {name} would be the entry itself, {folder}; choose another folder with -o"
            )


def _make_output(arguments, output):
    """Make the folder of the outputs, in which the JSON may lie too."""
    new = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise path_error(output, f"cannot be made ({error.strerror}); choose another folder") from error
    try:
        check_json(arguments.json)
    except UserError:
        if new:
            output.rmdir()
        raise


def _denoise_entry(name, folder, target, arguments, settings, weights) -> Outcome:
    """Denoise an entry, unless it is finished; an error in it does not end the run."""
    try:
        return _denoised(name, folder, target, arguments, settings, weights)
    except UserError as error:
        text, reason = str(error), error.text
    except (MemoryError, RuntimeError) as error:
        text = reason = out_of_memory(error)
    except OSError as error:
        reason = f"{error.strerror or error}; check the path and the disk"
        text = f"{error.filename or target}: {reason}"
    return Outcome(name, _SKIPPED, current_messages().elapsed, error=as_options(text), reason=as_options(reason))


def _denoised(name, folder, target, arguments, settings, weights) -> Outcome:
    from crefjax.io.entries import find_entry

    entry = find_entry(folder)
    mask = {"none": None, None: entry.mask}.get(arguments.mask, arguments.mask)
    asked = requested_result(entry, mask, arguments, settings, weights)
    if (target / RECORD).is_file() and not arguments.overwrite:
        record = read_finished(target, asked)
        log("finished before")
        return Outcome(name, _BEFORE, current_messages().elapsed, record)
    check_output_folder(
        target,
        "the output of an entry",
        RECORD,
        overwrite=arguments.overwrite,
        inputs=[entry.half_map_1],
        make_parents=True,
    )
    check_only_outputs(target)
    with atomic_directory(target) as hidden:
        job = DenoiseJob(
            entry.half_map_1,
            entry.half_map_2,
            mask,
            hidden / OUTPUT,
            weights,
            settings,
            halves=arguments.halves,
            local=arguments.local,
            report=hidden / arguments.report if arguments.report else None,
            final=target,
        )
        check_job(job)
        record = run_job(job)
        outputs = {role: os.path.relpath(path, target) for role, path in record["outputs"].items()}
        content = {**record, "outputs": outputs, "asked": asked}
        write_bytes(hidden / RECORD, (json_text(content) + "\n").encode())
    return Outcome(name, _DONE, current_messages().elapsed, record)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the lines of the table, a row for each entry, and a line with the counts."""
    rows = [("entry", "FSC-0.143", "seconds", "warnings", "found")]
    rows += [(outcome.name, *_cells(outcome)) for outcome in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for name, *numbers, found in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([f"{name:<{widths[0]}}", *cells, found]))
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in (_DONE, _BEFORE, _SKIPPED)}
    total = f"{len(outcomes)} {'entry' if len(outcomes) == 1 else 'entries'}"
    return [*lines, f"{total}: " + ", ".join(f"{count} {status}" for status, count in counts.items() if count)]


def _cells(outcome):
    if outcome.record is None:
        return (
            "-",
            f"{outcome.seconds:.1f}",
            "-",
            f"skipped: {textwrap.shorten(outcome.reason, 70, placeholder=' ...')}",
        )
    found = outcome.record["found"]
    resolution = "-"
    if (angstrom := found.get("resolution_at_0.143")) is not None:
        resolution = f"{angstrom:.2f} Å" if found["falls_below_0.143"] else f"< {angstrom:.2f} Å"
    kinds = [finding["kind"] for finding in found["findings"]]
    kinds += [warning["kind"] for warning in found.get("report", {}).get("warnings", [])]
    text = ", ".join(dict.fromkeys(kind.replace("_", " ") for kind in kinds)) or "no problem"
    if outcome.status == _BEFORE:
        text += f" ({_BEFORE})"
    return resolution, f"{outcome.seconds:.1f}", str(len(outcome.record["warnings"])), text


def _content(outcomes):
    return {
        "format_version": FORMAT_VERSION,
        "crefjax": __version__,
        "command": "denoise",
        "entries": [
            {
                "name": outcome.name,
                "status": outcome.status,
                "seconds": outcome.seconds,
                "error": outcome.error,
                "run": outcome.record,
            }
            for outcome in outcomes
        ],
        "seconds": {"total": current_messages().elapsed},
    }


def requested_result(entry: Entry, mask, arguments, settings, weights: Weights) -> dict:
    """Return everything that the result depends on, to compare a finished entry with the current request."""
    files = {"half-map 1": entry.half_map_1, "half-map 2": entry.half_map_2}
    if mask not in (None, "auto"):
        files["mask file"] = Path(mask)
    return {
        "weights": f"{weights.name} {_checksum(weights)[:16]}",
        "mask": mask if mask in (None, "auto") else "a file",
        **{name: value for name, value in settings.items() if name not in _INDIFFERENT},
        **{name: getattr(arguments, name) for name in ("halves", "local", "report")},
        **{name: file_state(path) for name, path in files.items()},
    }


def _checksum(weights):
    import jax
    import numpy as np

    total = hashlib.sha256()
    for leaf in jax.tree.leaves(weights.parameters):
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()


def read_finished(target: Path, asked: dict) -> dict:
    """Return the record of a finished entry, with the paths of its outputs.

    Raises:
        UserError: it was denoised with other settings or from other files, or an output is missing.
    """
    advice = "give --overwrite to denoise it again, or choose another folder with -o"
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
        earlier = record.pop("asked")
        outputs = {role: target / name for role, name in record["outputs"].items()}
        if record["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {record['format_version']}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise path_error(
            target / RECORD, f"expected the record of a finished entry, cannot be read; {advice}"
        ) from error
    for path in outputs.values():
        if not path.exists():
            raise path_error(path, f"expected the output of a finished entry, found none; {advice}")
    for name in dict.fromkeys([*asked, *earlier]):
        if asked.get(name) != earlier.get(name):
            if name in _FILES:
                raise path_error(target, f"finished before, but its {name} has changed since; {advice}")
            raise path_error(
                target,
                f"finished before with other settings ({name} {_word(earlier.get(name))}, now "
                f"{_word(asked.get(name))}); {advice}",
            )
    return {**record, "outputs": {role: str(path) for role, path in outputs.items()}}


def _word(value):
    if value is None or isinstance(value, bool):
        return {None: "not given", True: "on", False: "off"}[value]
    return value


def check_only_outputs(target: Path) -> None:
    """Refuse to replace a folder in which there is more than the output of an entry."""
    if not (target / RECORD).is_file():
        return
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
        known = {RECORD, *(Path(name).parts[0] for name in record["outputs"].values())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        known = {RECORD}
    if others := sorted(path.name for path in target.iterdir() if path.name not in known):
        raise path_error(target, f"the folder also holds {others[0]}, which is not an output; move it away first")
