"""What a prepared dataset says of itself: `manifest.json`, one `entry.json` an entry, `dataset.json` of its settings.

DATASET/dataset.json                      the settings and entries it was begun with; there from the start
DATASET/entries/<entry>/00000.array_record, ...   its patches
DATASET/entries/<entry>/entry.json        all about the entry but its side of the split
DATASET/manifest.json                     everything; there once the dataset is whole
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from crefjax.errors import UserError, path_error
from crefjax.utils.atomic import atomic_write

DATASET_VERSION = 1
FORMAT = "crefjax dataset"
SPLITS = ("training", "validation")
BEGUN, ENTRIES, ENTRY, MANIFEST = "dataset.json", "entries", "entry.json", "manifest.json"


@dataclass(frozen=True)
class Shard:
    """One ArrayRecord file."""

    file: str
    """Path within the dataset."""
    records: int
    """Patches in it."""
    bytes: int
    """Its size."""
    sha256: str
    """Of the whole file."""


@dataclass(frozen=True)
class EntryRecord:
    """One entry of a dataset."""

    name: str
    """Unique in the dataset: that of its folder, with a number where two are called the same."""
    half_map_1: str
    """Absolute path of the file that was read."""
    half_map_2: str
    """The same for the second half-map."""
    mask: str | None
    """The same for the mask, None if one was made."""
    truth: str | None
    """The same for the noise-free map, None if none was stored."""
    sha256: dict[str, str]
    """Of the files that were read, by `half_map_1`, `half_map_2`, `mask`, `truth`."""
    voxel_size: float
    """Å."""
    box: tuple[int, int, int]
    """Voxels, `(z, y, x)`; of the working grid where there is one."""
    mean: float
    """Of the full map over the whole box, in its own units; of its solvent on a working grid."""
    deviation: float
    """Of the full map; its root mean square within the mask on a working grid."""
    mask_info: dict | None
    """How the mask was made (`masking.MaskInfo`), None if it was given."""
    patches: int
    """How many were kept."""
    patches_dropped: int
    """How many of the grid were not, for want of mask or because a half-map is constant there."""
    shards: tuple[Shard, ...]
    """Where they are."""
    notes: tuple[str, ...] = ()
    """What is to be known of the half-maps, one line each."""
    split: str = ""
    """`training` or `validation`; empty in `entry.json`."""


@dataclass(frozen=True)
class Manifest:
    """A whole dataset."""

    dataset_version: int
    """Of the layout."""
    crefjax: str
    """Version that wrote it."""
    patch: int
    """Side of the patches, voxels."""
    stride: int
    """From patch to patch, voxels."""
    dtype: str
    """Of the stored densities, `float16` or `float32`."""
    validation: float
    """Share of the entries that was asked for."""
    seed: int
    """Of the split."""
    truth: bool
    """Whether each patch has the noise-free map."""
    patches: dict[str, int]
    """How many on each side of the split."""
    entries: tuple[EntryRecord, ...]
    """Sorted by name."""
    left_out: dict[str, str]
    """Why, for each entry that could not be used, by its name."""
    grid: float = 0.0
    """Voxels that the resolution takes on the working grid; 0 for the grid of the files."""
    voxel_size: float = 0.0
    """Å, that was taken in place of the headers'; 0 where it was not."""
    insist: bool = False
    """Whether half-maps were taken that are found to be no pair."""
    folder: Path = field(default=Path(), compare=False)
    """Where it lies; not in the file."""

    def of_split(self, split: str) -> tuple[EntryRecord, ...]:
        """The entries on one side of the split."""
        return tuple(entry for entry in self.entries if entry.split == split)


def load_manifest(folder) -> Manifest:
    """The manifest of a whole dataset, its shards all there and of the right size.

    Raises:
        UserError: no such folder, no dataset, one that is unfinished, damaged or of another version, or shards missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise path_error(folder, "expected a dataset folder, found no folder of that name; check the path")
    if not (folder / MANIFEST).is_file():
        if (folder / BEGUN).is_file():
            raise path_error(
                folder, "the dataset is unfinished; `crefjax prepare` with the same arguments again finishes it"
            )
        raise path_error(folder, f"expected a dataset of `crefjax prepare`, found no {MANIFEST} in the folder")
    found = read_json(folder / MANIFEST)
    check_version(folder / MANIFEST, found)
    try:
        manifest = _manifest(found, folder)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise path_error(
            folder / MANIFEST, "the manifest is damaged; delete it and run crefjax prepare again"
        ) from error
    for entry in manifest.entries:
        check_shards(folder, entry)
    return manifest


def check_version(path: Path, found: dict) -> None:
    """Raises UserError where a JSON file is not of a dataset, or not of this version of datasets."""
    if found.get("format") != FORMAT:
        raise path_error(path, "expected a file of a dataset of `crefjax prepare`, found another; check the folder")
    if found.get("dataset_version") != DATASET_VERSION:
        raise path_error(
            path,
            f"expected a dataset of version {DATASET_VERSION}, found {found.get('dataset_version')}; prepare it anew "
            "with this crefjax, or use the one that wrote it",
        )


def check_shards(folder: Path, entry: EntryRecord) -> None:
    """Raises UserError unless every shard of an entry is there with its size: a shard cut short reads as empty."""
    for shard in entry.shards:
        path = folder / shard.file
        try:
            size = path.stat().st_size
        except OSError as error:
            text = f"the shard cannot be found ({error.strerror}); run crefjax prepare again with the same arguments"
            raise path_error(path, text) from error
        if size != shard.bytes:
            text = f"the shard is damaged: expected {shard.bytes} bytes, found {size}; run crefjax prepare again"
            raise path_error(path, f"{text} with the same arguments")


def read_json(path: Path) -> dict:
    """A JSON object.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise path_error(path, f"cannot be read ({error.strerror}); check its permissions and the disk") from error
    except ValueError as error:
        raise path_error(path, "expected JSON, found something else; run crefjax prepare with --overwrite") from error
    if not isinstance(found, dict):
        raise path_error(path, "expected a JSON object, found another value; run crefjax prepare with --overwrite")
    return found


def write_json(path: Path, content: dict) -> None:
    """Write a JSON object, renamed into place once it is whole.

    Raises:
        UserError: the disk is full, or refuses.
    """
    raw = (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    with atomic_write(path, needed=len(raw), overwrite=True) as stream:
        stream.write(raw)


def manifest_content(manifest: Manifest) -> dict:
    """What `manifest.json` holds."""
    content = asdict(manifest)
    del content["folder"]
    return {"format": FORMAT, **_plain(content)}


def entry_content(entry: EntryRecord) -> dict:
    """What `entry.json` says of an entry."""
    content = _plain(asdict(entry))
    del content["split"]
    return content


def entry_from(content: dict) -> EntryRecord:
    """The entry of what a JSON file says.

    Raises:
        TypeError, KeyError, AttributeError: the content is not one.
    """
    shards = tuple(Shard(**shard) for shard in content["shards"])
    tuples = {"box": tuple(content["box"]), "notes": tuple(content.get("notes", ()))}
    return EntryRecord(**{**content, "shards": shards, **tuples})


def _manifest(found, folder):
    content = {key: value for key, value in found.items() if key != "format"}
    entries = tuple(entry_from(entry) for entry in content["entries"])
    return Manifest(**{**content, "entries": entries, "folder": folder})


def _plain(value):
    """Tuples as lists, as JSON has them: what is written and what is read back are equal."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def all_shards(entries) -> Iterator[tuple[int, Shard]]:
    """Every shard of entries in order, with the index of its entry."""
    for number, entry in enumerate(entries):
        for shard in entry.shards:
            yield number, shard


def damaged_or_missing(folder: Path, entry: EntryRecord) -> bool:
    """Whether a shard of an entry is not there with its size."""
    try:
        check_shards(folder, entry)
    except UserError:
        return True
    return False
