"""Entry folders, which hold a half-map pair with its mask, model, and outputs; reading of pairs and masks."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crefjax.errors import path_error
from crefjax.io.files import is_same_file, map_stem
from crefjax.io.maps import Map, check_same_grid, read_map
from crefjax.utils.statistics import extremes

MASK_TOLERANCE = 1e-3  # float16 rounds 1 to about 5e-4
LEAST_MASK = 27  # voxels; with fewer, a shell is meaningless

_EMDB = re.compile(r"emd_(\d+)_(half_map_1|half_map_2|msk_1)", re.IGNORECASE)
_MODELS = ("model.cif", "model.pdb", "model.cif.gz", "model.pdb.gz")


@dataclass(frozen=True)
class Output:
    """Maps that one method made of an entry; None for those that are missing.

    Attributes:
        full: the denoised full map.
        half_map_1: the denoised half-map 1.
        half_map_2: the denoised half-map 2.
    """

    full: Path | None
    half_map_1: Path | None
    half_map_2: Path | None


@dataclass(frozen=True)
class Entry:
    """The files of an entry folder.

    Attributes:
        path: the folder.
        name: its name.
        half_map_1: half-map 1.
        half_map_2: half-map 2.
        mask: values 0 to 1, or None.
        model: atomic model (`.cif`, `.pdb`), or None.
        reference: a better map of the same specimen, or None.
        truth: the noise-free map of a simulated entry, or None.
        outputs: the maps of each method, by its name, sorted.
    """

    path: Path
    name: str
    half_map_1: Path
    half_map_2: Path
    mask: Path | None
    model: Path | None
    reference: Path | None
    truth: Path | None
    outputs: dict[str, Output]


def find_entry(folder) -> Entry:
    """Find the files of an entry folder by their names, without opening them.

    Half-maps are `half_map_1.*` or EMDB's `emd_<id>_half_map_1.*`; a mask is `mask.*` or else EMDB's
    `emd_<id>_msk_1.*`. EMDB's deposited map `emd_<id>.*` is not a reference: it may be made from this pair.

    Raises:
        UserError: no folder; a half-map is missing; two files could be the same part; two EMDB entries are mixed.
    """
    folder = Path(folder)
    files = _map_files(folder)
    half_maps = [_half_map(folder, files, part) for part in ("half_map_1", "half_map_2")]
    _check_one_emdb_entry(folder, half_maps)
    own_mask = _at_most_one(folder, files, "mask")
    return Entry(
        path=folder,
        name=folder.resolve().name,
        half_map_1=half_maps[0],
        half_map_2=half_maps[1],
        mask=own_mask or _at_most_one(folder, files, "msk_1"),
        model=_model(folder),
        reference=_at_most_one(folder, files, "reference"),
        truth=_at_most_one(folder, files, "truth"),
        outputs=_outputs(folder / "outputs"),
    )


def _map_files(folder: Path) -> dict[str, list[Path]]:
    """Return the maps of a folder by part, which is the name without suffix and EMDB's number."""
    files: dict[str, list[Path]] = {}
    for path in _list_folder(folder):
        stem = map_stem(path.name)
        if stem is not None and os.path.isfile(path):
            emdb = _EMDB.fullmatch(stem)
            files.setdefault(emdb[2].lower() if emdb else stem, []).append(path)
    return files


def _list_folder(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError) as error:
        text = "expected an entry folder, found no folder of that name; check the path"
        raise path_error(folder, text) from error
    except OSError as error:
        raise path_error(folder, f"the folder cannot be read ({error.strerror}); check its permissions") from error


def _half_map(folder: Path, files: dict[str, list[Path]], part: str) -> Path:
    path = _at_most_one(folder, files, part)
    if path is None:
        names = sorted(file.name for group in files.values() for file in group)
        found = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "no map at all"
        raise path_error(
            folder,
            f"expected {part}.mrc or emd_<id>_{part}.map (.mrc, .map, .ccp4, plain, .gz or .bz2), found "
            f"{found}; rename the half-maps",
        )
    return path


def _at_most_one(folder: Path, files: dict[str, list[Path]], part: str) -> Path | None:
    candidates = files.get(part, [])
    if len(candidates) > 1:
        names = " and ".join(path.name for path in candidates)
        raise path_error(folder, f"expected one {part}, found {names}; move all but one away")
    return candidates[0] if candidates else None


def _check_one_emdb_entry(folder: Path, half_maps: list[Path]) -> None:
    matches = [_EMDB.fullmatch(map_stem(path.name)) for path in half_maps]
    if all(matches) and matches[0][1] != matches[1][1]:
        names = " and ".join(path.name for path in half_maps)
        raise path_error(folder, f"expected half-maps of one EMDB entry, found {names}; keep one entry per folder")


def _model(folder: Path) -> Path | None:
    models = [folder / name for name in _MODELS if os.path.isfile(folder / name)]
    return _at_most_one(folder, {"model": models}, "model")


def _outputs(folder: Path) -> dict[str, Output]:
    if not os.path.isdir(folder):
        return {}
    outputs = {}
    for method in filter(os.path.isdir, _list_folder(folder)):
        if method.name.startswith("."):  # being written
            continue
        files = _map_files(method)
        parts = [_at_most_one(method, files, part) for part in ("full", "half_map_1", "half_map_2")]
        if any(parts):
            outputs[method.name] = Output(*parts)
    return outputs


def load_pair(half_map_1_path, half_map_2_path, *, voxel_size: float | None = None) -> tuple[Map, Map]:
    """Read two half-maps on one grid; `crefjax.data.pair_check` checks whether they are a pair otherwise.

    Args:
        half_map_1_path: half-map 1.
        half_map_2_path: half-map 2.
        voxel_size: Å, instead of the headers'; None for theirs.

    Raises:
        UserError: `read_map` refuses a file; the two paths are one file; the grids differ; all voxels are equal.
    """
    names = f"{half_map_1_path} and {half_map_2_path}"
    advice = "give the two half-maps of one reconstruction"
    if is_same_file(half_map_1_path, half_map_2_path) and not os.path.isdir(half_map_1_path):
        raise path_error(names, f"expected two half-maps, found the same map twice (one file); {advice}")
    first, second = (read_map(path, voxel_size=voxel_size) for path in (half_map_1_path, half_map_2_path))
    check_same_grid(first, second, "half-maps")
    if all(np.array_equal(a, b) for a, b in zip(first.array, second.array, strict=True)):
        raise path_error(names, f"expected two half-maps, found the same map twice (all voxels equal); {advice}")
    return first, second


def load_mask(path, like: Map, *, voxel_size: float | None = None) -> Map:
    """Read a mask for a map.

    Args:
        path: the mask; values 0 to 1. Values outside by at most 0.001 are rounding errors and are clipped.
        like: a map on the grid that the mask must have.
        voxel_size: Å, instead of the header's; None for its own.

    Raises:
        UserError: `read_map` refuses the file (a constant map is allowed); `check_mask` refuses the mask.
    """
    mask = read_map(path, allow_constant=True, voxel_size=voxel_size)
    check_mask(mask, like)
    np.clip(mask.array, 0, 1, out=mask.array)
    return mask


def check_mask(mask: Map, like: Map) -> None:
    """Check that a map is a mask for another map.

    Args:
        mask: values 0 to 1.
        like: the other map.

    Raises:
        UserError: another grid; values outside 0 to 1 by more than 0.001; 0 in (nearly) every voxel.
    """
    check_same_grid(mask, like, "mask and half-map")
    path = mask.path or "the mask"
    low, high = extremes(mask.array)
    if mask.header.fields.mode == 0 and (low, high) == (-1, 0):  # signed, as the standard has it
        raise path_error(path, "expected a mask of values 0 to 1, found 0 and 255 (unsigned bytes); divide it by 255")
    if low < -MASK_TOLERANCE or high > 1 + MASK_TOLERANCE:
        raise path_error(path, f"expected a mask of values 0 to 1, found {low:.4g} to {high:.4g}; rescale it")
    if high <= 0:
        raise path_error(path, "expected a mask, found 0 in every voxel; give the mask of the particle")
    least = min(LEAST_MASK, mask.array.size / 10)
    if (volume := float(mask.array.sum(dtype=np.float64))) < least:
        raise path_error(
            path, f"expected a mask of at least {least:g} voxels, found {volume:.3g}; give the mask of the particle"
        )
