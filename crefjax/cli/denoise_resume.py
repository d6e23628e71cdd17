"""Finished entries of `crefjax denoise --entries`: their record, and whether it is what is asked for now."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from crefjax.cli.record import FORMAT_VERSION
from crefjax.errors import path_error

if TYPE_CHECKING:
    from crefjax.io.entries import Entry
    from crefjax.weights.store import Weights

RECORD = "run.json"
_INDIFFERENT = ("device", "max_memory")  # settings that do not change the result
_FILES = ("half-map 1", "half-map 2", "mask file")


def what_is_asked(entry: Entry, mask, arguments, settings, weights: Weights) -> dict:
    """Return what decides about the result, by which a finished entry is compared with what is wanted now."""
    files = {"half-map 1": entry.half_map_1, "half-map 2": entry.half_map_2}
    if mask not in (None, "auto"):
        files["mask file"] = Path(mask)
    return {
        "weights": f"{weights.name} {_checksum(weights)[:16]}",
        "mask": mask if mask in (None, "auto") else "a file",
        **{name: value for name, value in settings.items() if name not in _INDIFFERENT},
        **{name: getattr(arguments, name) for name in ("halves", "local", "report")},
        **{name: _state(path) for name, path in files.items()},
    }


def _state(path):
    """Return what changes when a file does: size and time of the last change, not its content, which takes long."""
    info = os.stat(path)
    return [info.st_size, info.st_mtime_ns]


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
        raise path_error(target, f"the folder also holds {others[0]}, which is no output; move it away first")
