"""Files of a prepared dataset: `manifest.json`, an `entry.json` for each entry, and `dataset.json` with its settings.

DATASET/dataset.json                      settings and entries; present from the start
DATASET/entries/<entry>/00000.array_record, ...   patches
DATASET/entries/<entry>/entry.json        the entry, except its side of the split
DATASET/manifest.json                     the whole dataset; present once it is complete
DATASET/parts/                            findings of its parts (`dataset_folder`); present until it is complete
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from crefjax.errors import path_error

DATASET_VERSION = 1
FORMAT = "crefjax dataset"
SPLITS = ("training", "validation")
SETTINGS_FILE, ENTRIES_FOLDER, PARTS_FOLDER = "dataset.json", "entries", "parts"
ENTRY_FILE, MANIFEST_FILE = "entry.json", "manifest.json"


@dataclass(frozen=True)
class Shard:
    """One ArrayRecord file.

    Attributes:
        file: path within the dataset.
        records: number of patches.
        bytes: size.
        sha256: checksum of the whole file.
    """

    file: str
    records: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class EntryRecord:
    """One entry of a dataset.

    Attributes:
        name: unique in the dataset: that of its folder, with a number if two have the same.
        half_map_1: absolute path of the file that was read.
        half_map_2: the same for half-map 2.
        mask: the same for the mask, None if one was made.
        truth: the same for the noise-free map, None if none is stored.
        sha256: checksums of the files that were read, by `half_map_1`, `half_map_2`, `mask`, `truth`.
        voxel_size: Å.
        box: voxels, `(z, y, x)`; those of the working grid if there is one.
        mean: of the full map over the whole box, in its own units; of its solvent on a working grid.
        deviation: standard deviation of the full map; its root mean square within the mask on a working grid.
        mask_info: settings of a mask that was made (`masking.MaskInfo`), None if it was given.
        patches: number of patches that were kept.
        patches_dropped: number of those that were not, for lack of mask or because a half-map is constant there.
        shards: files of the patches.
        notes: one line for each thing to know about the half-maps.
        split: `training` or `validation`; empty in `entry.json`.
    """

    name: str
    half_map_1: str
    half_map_2: str
    mask: str | None
    truth: str | None
    sha256: dict[str, str]
    voxel_size: float
    box: tuple[int, int, int]
    mean: float
    deviation: float
    mask_info: dict | None
    patches: int
    patches_dropped: int
    shards: tuple[Shard, ...]
    notes: tuple[str, ...] = ()
    split: str = ""


@dataclass(frozen=True)
class Manifest:
    """A complete dataset.

    Attributes:
        dataset_version: version of the layout.
        crefjax: version of the package that wrote it.
        patch: side of the patches, voxels.
        stride: distance from patch to patch, voxels.
        dtype: type of the stored densities, `float16` or `float32`.
        validation: share of the entries that was asked for.
        seed: random seed of the split.
        truth: whether each patch has the noise-free map.
        patches: number of patches on each side of the split.
        entries: sorted by name.
        left_out: reason for each entry that was skipped, by its name.
        grid: voxels per resolution on the working grid; 0 for the maps' own grid.
        voxel_size: Å, if it replaced that of the headers; else 0.
        insist: whether half-maps that are not a pair were accepted.
        folder: the dataset's folder; not in the file.
    """

    dataset_version: int
    crefjax: str
    patch: int
    stride: int
    dtype: str
    validation: float
    seed: int
    truth: bool
    patches: dict[str, int]
    entries: tuple[EntryRecord, ...]
    left_out: dict[str, str]
    grid: float = 0.0
    voxel_size: float = 0.0
    insist: bool = False
    folder: Path = field(default=Path(), compare=False)

    def of_split(self, split: str) -> tuple[EntryRecord, ...]:
        """Return the entries on one side of the split."""
        return tuple(entry for entry in self.entries if entry.split == split)


def load_manifest(folder) -> Manifest:
    """Load the manifest of a complete dataset, and check that all shards have their size.

    Raises:
        UserError: not a dataset; one that is incomplete, damaged, or of another version; or shards are missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise path_error(folder, "expected a dataset folder, found no folder of that name; check the path")
    if not (folder / MANIFEST_FILE).is_file():
        if (folder / SETTINGS_FILE).is_file():
            raise path_error(
                folder, "the dataset is unfinished; run `crefjax prepare` again with the same arguments to finish it"
            )
        raise path_error(folder, f"expected a dataset of `crefjax prepare`, found no {MANIFEST_FILE} in the folder")
    content = read_json(folder / MANIFEST_FILE)
    check_version(folder / MANIFEST_FILE, content)
    try:
        del content["format"]
        content["entries"] = tuple(entry_from(entry) for entry in content["entries"])
        manifest = Manifest(**content, folder=folder)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise path_error(
            folder / MANIFEST_FILE, "the manifest is damaged; delete it and run crefjax prepare again"
        ) from error
    for entry in manifest.entries:
        check_shards(folder, entry)
    return manifest


def check_version(path: Path, content: dict) -> None:
    """Raise UserError if a JSON file does not belong to a dataset, or belongs to another dataset version."""
    if content.get("format") != FORMAT:
        raise path_error(path, "expected a file that `crefjax prepare` wrote, found another; check the folder")
    if content.get("dataset_version") != DATASET_VERSION:
        raise path_error(
            path,
            f"expected a dataset of version {DATASET_VERSION}, found {content.get('dataset_version')}; prepare it "
            "again, or use the version of crefjax that wrote it",
        )


def check_shards(folder: Path, entry: EntryRecord) -> None:
    """Raise UserError unless every shard of an entry has its size: a shard that is cut short reads as empty."""
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
    """Read a JSON object.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise path_error(path, f"cannot be read ({error.strerror}); check its permissions and the disk") from error
    except ValueError as error:
        raise path_error(path, "expected JSON, found something else; prepare it again with `overwrite`") from error
    if not isinstance(content, dict):
        raise path_error(path, "expected a JSON object, found another value; prepare it again with `overwrite`")
    return content


def manifest_content(manifest: Manifest) -> dict:
    """Return the content of `manifest.json`."""
    content = asdict(manifest)
    del content["folder"]
    return {"format": FORMAT, **_plain(content)}


def entry_content(entry: EntryRecord) -> dict:
    """Return the content of `entry.json`."""
    content = _plain(asdict(entry))
    del content["split"]
    return content


def entry_from(content: dict) -> EntryRecord:
    """Return the entry that is the content of a JSON file.

    Raises:
        TypeError, KeyError, AttributeError: it is not an entry.
    """
    shards = tuple(Shard(**shard) for shard in content["shards"])
    tuples = {"box": tuple(content["box"]), "notes": tuple(content.get("notes", ()))}
    return EntryRecord(**{**content, "shards": shards, **tuples})


def _plain(value):
    """Return a value with tuples as lists, so that it equals what is read back from JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def all_shards(entries) -> Iterator[tuple[int, Shard]]:
    """Yield every shard of entries in order, with the index of its entry."""
    for number, entry in enumerate(entries):
        for shard in entry.shards:
            yield number, shard
