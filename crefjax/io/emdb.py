"""Search of EMDB, and download of its entries into entry folders.

The Electron Microscopy Data Bank serves the files of entry EMD-N under `structures/EMD-N/`: half-maps as
`other/emd_N_half_map_1.map.gz` and `_2`, masks as `masks/emd_N_msk_1.map`, the deposited map as `map/emd_N.map.gz`, and
a description as `header/emd-N.xml` (version 3 of EMDB's schema). EMDB has required half-maps since 2022; many older
entries have none. The atomic model of an entry is an entry of the PDB, which the description names.

A search is a query in the syntax of Apache Solr over EMDB's fields, such as `structure_determination_method`,
`resolution`, and `half_map_filename`; https://www.ebi.ac.uk/emdb/documentation/search describes both. The answer is a
table of comma-separated values.
"""

import csv
import functools
import gzip
import io
import math
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import gemmi

from crefjax.errors import CannotWriteError, UserError, path_error
from crefjax.io.http import Downloaded, HttpClient, check_url, describe_existing
from crefjax.io.maps import check_map_file
from crefjax.io.models import no_atoms
from crefjax.utils.atomic import write_json
from crefjax.utils.signals import exclusive_lock

BASE_URL = "https://ftp.ebi.ac.uk/pub/databases/emdb"
PDB_URL = "https://files.wwpdb.org/pub/pdb/data/structures/divided/mmCIF"
ENTRY_FILE = "entry.json"
PARTS = ("half-maps", "mask", "map", "model")
MOST_JOBS = 10  # downloads at once, out of consideration for the archive
SEARCH_URL = "https://www.ebi.ac.uk/emdb/api/search"
_ROWS = 1_000_000  # more than EMDB has; the interface gives a few by default


@dataclass(frozen=True)
class EntryInfo:
    """The description of an entry by EMDB.

    Attributes:
        entry: `EMD-` and its number.
        title: of the deposition.
        method: such as `singleParticle` or `subtomogramAveraging`.
        resolution: Å, as the authors give it; None if they do not.
        resolution_method: how they found it, such as `FSC 0.143 CUT-OFF`.
        voxel_size: Å, of the deposited map.
        contour_level: that the authors recommend for the deposited map.
        point_group: symmetry that was applied.
        pdb: codes of the fitted atomic models.
    """

    entry: str
    title: str | None
    method: str | None
    resolution: float | None
    resolution_method: str | None
    voxel_size: float | None
    contour_level: float | None
    point_group: str | None
    pdb: tuple[str, ...]


class FetchedEntry(NamedTuple):
    """An entry that is in its folder.

    Attributes:
        folder: the folder.
        info: its description.
        files: its files.
    """

    folder: Path
    info: EntryInfo
    files: tuple[Downloaded, ...]


class _RemoteFile(NamedTuple):
    place: str  # below the entry's address, or an address of its own
    name: str
    check: Callable[[Path], None]
    optional: bool


def entry_number(name: str) -> str:
    """Return the number of an entry, given `EMD-1234`, `emd_1234` or `1234`.

    Raises:
        UserError: another name.
    """
    match = re.fullmatch(r"(?:emd[-_]?)?(\d{4,6})", name.strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"{name}: expected an EMDB entry such as EMD-3488, found something else; check the number")
    return match[1]


def read_list(path: Path) -> list[str]:
    """Return the entries of a text file: one at the beginning of each line; what follows `#` is a comment.

    Raises:
        UserError: the file cannot be read, or a line does not begin with an entry.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # a table of a spreadsheet may have the mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise path_error(path, f"the list of entries cannot be read ({reason}); check the path") from error
    entries = []
    for number, line in enumerate(lines, 1):
        words = re.split(r"[\s,;]+", line.split("#")[0].replace('"', " ").strip())
        if words[0] and not (number == 1 and words[0] == "emdb_id"):  # the head of a table
            try:
                entries.append(f"EMD-{entry_number(words[0])}")
            except UserError as error:
                raise path_error(path, f"line {number}: {error}") from error
    return entries


def fetch_entries(
    names: Sequence[str],
    output: Path,
    *,
    what: Sequence[str] = ("half-maps", "mask"),
    base_url: str = BASE_URL,
    pdb_url: str = PDB_URL,
    jobs: int = 4,
    client: HttpClient | None = None,
    progress: Callable[[float, str], None] = lambda share, note: None,
) -> Iterator[tuple[str, FetchedEntry | UserError]]:
    """Download entries, several at once, and yield each name with its entry or the reason why it was left out.

    The files of an entry are in `output/EMD-N`, under EMDB's own names, with `entry.json`. Those that exist already
    are not downloaded again; unfinished ones are continued.

    Args:
        names: of entries; one that is given twice is downloaded once.
        output: folder of the entries' folders; made if it does not exist.
        what: parts of `PARTS` to download. A part that an entry does not have is left out, except half-maps: an entry
            without them is skipped.
        base_url: address of the archive, or of a mirror of it.
        pdb_url: address of the PDB's mmCIF files, which lie in folders of two letters.
        jobs: number of simultaneous downloads, at most `MOST_JOBS`.
        client: client for the requests; None for one with the default settings.
        progress: called with the share of the entries that is done, and a note.

    Raises:
        UserError: a name, an address or a setting is invalid.
        CannotWriteError: the file system refused.
    """
    numbers = list(dict.fromkeys(entry_number(name) for name in names))
    for url in (base_url, pdb_url):
        check_url(url)
    if unknown := [part for part in what if part not in PARTS]:
        raise UserError(f"what: expected some of {', '.join(PARTS)}, found {unknown[0]!r}; correct it")
    if not 1 <= jobs <= MOST_JOBS:
        raise UserError(f"`jobs`: expected 1 to {MOST_JOBS} downloads at once, found {jobs}; change it")
    client = client or HttpClient(connections=jobs)
    shares = _Shares(len(numbers), progress)
    fetch = functools.partial(fetch_entry, what=what, base_url=base_url, pdb_url=pdb_url, client=client)
    with ThreadPoolExecutor(jobs) as threads:
        try:
            futures = {
                threads.submit(fetch, number, output / f"EMD-{number}", report=shares.reporter(number)): number
                for number in numbers
            }
            for future in as_completed(futures):
                error = future.exception()
                if error is not None and (not isinstance(error, UserError) or isinstance(error, CannotWriteError)):
                    raise error
                shares.finish(futures[future])
                yield f"EMD-{futures[future]}", error or future.result()
        finally:
            threads.shutdown(cancel_futures=True)


class _Shares:
    """Adds up the shares of the entries, which threads report."""

    def __init__(self, count, progress):
        self._shares, self._count, self._progress, self._lock = {}, count, progress, threading.Lock()

    def reporter(self, number):
        return lambda share, name: self._set(number, share, name)

    def finish(self, number):
        self._set(number, 1.0, f"EMD-{number}")

    def _set(self, number, share, note):
        with self._lock:
            self._shares[number] = share
            self._progress(sum(self._shares.values()) / self._count, note)


def fetch_entry(
    name: str,
    folder: Path,
    *,
    what: Sequence[str] = ("half-maps", "mask"),
    base_url: str = BASE_URL,
    pdb_url: str = PDB_URL,
    client: HttpClient | None = None,
    report: Callable[[float, str], None] = lambda share, name: None,
) -> FetchedEntry:
    """Download one entry; see `fetch_entries`.

    Args:
        name: of the entry, `EMD-1234` or its number.
        folder: where to put its files; made if it does not exist.
        what: parts to download.
        base_url: address of the archive.
        pdb_url: address of the PDB's mmCIF files.
        client: for the requests.
        report: called with the share of the entry that has been received, and the name of a file.

    Raises:
        UserError: no such entry, or no half-maps in it; the server refused or could not be reached; a file is damaged.
        CannotWriteError: the folder cannot be written.
    """
    number, client = entry_number(name), client or HttpClient()
    base = f"{base_url.rstrip('/')}/structures/EMD-{number}"
    header_url = f"{base}/header/emd-{number}.xml"
    text = client.read_text(header_url, accept="application/xml, text/xml, */*")
    if text is None:
        raise UserError(f"EMD-{number}: expected its description at {header_url}, found none; check the number")
    info, remote_files = _parse_header(text, number, what, pdb_url, header_url)
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(folder, "another crefjax fetch is writing this entry; wait until it ends"):
            files = list(_download_all(remote_files, base, folder, client, report))
            content = {"format": "crefjax entry", **asdict(info), "base_url": base_url.rstrip("/")}
            content["pdb"] = list(info.pdb)
            content["files"] = {
                file.path.name: {"url": file.url, "bytes": file.bytes, "sha256": file.sha256} for file in files
            }
            write_json(folder / ENTRY_FILE, content)
    except OSError as error:
        text = f"the folder cannot be written ({error.strerror or error}); choose another, or check the disk"
        raise CannotWriteError(text, path=folder) from error
    finally:
        if new:
            with suppress(OSError):  # it stays unless it is empty
                folder.rmdir()
    return FetchedEntry(folder, info, tuple(files))


def _download_all(remote_files, base, folder, client, report) -> Iterator[Downloaded]:
    for index, remote in enumerate(remote_files):
        path, count = folder / remote.name, len(remote_files)
        url = remote.place if remote.place.startswith("http") else f"{base}/{remote.place}"

        def show(share, index=index, name=remote.name, count=count):
            report((index + share) / count, name)

        found = describe_existing(path, url) if path.exists() else None
        found = found or client.download(url, path, check=remote.check, report=show)
        if found is not None:
            yield found
        elif not remote.optional:
            raise UserError(f"{url}: expected a half-map, found no such file; the entry cannot be used")


def _parse_header(text, number, what, pdb_url, url) -> tuple[EntryInfo, list[_RemoteFile]]:
    """Return what a description says, and the files to download.

    Raises:
        UserError: it is damaged, or names no half-maps though they are wanted.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"{url}: expected EMDB's description as XML, found something else ({error})") from error

    def every(path):
        found = root.findall("/".join(f"{{*}}{step}" for step in path.split("/")))
        return [element.text.strip() for element in found if element.text]

    final = _final_reconstruction(root)
    info = EntryInfo(
        entry=f"EMD-{number}",
        title=_text(root, "admin/title"),
        method=_text(root, "structure_determination_list/structure_determination/method"),
        resolution=parse_number(_text(final, "resolution")),
        resolution_method=_text(final, "resolution_method"),
        voxel_size=parse_number(_text(root, "map/pixel_spacing/x")),
        contour_level=_contour_level(root),
        point_group=_text(final, "applied_symmetry/point_group"),
        pdb=tuple(code.lower() for code in every("crossreferences/pdb_list/pdb_reference/pdb_id")),
    )
    half_maps = every("interpretation/half_map_list/half_map/file")
    masks = every("interpretation/segmentation_list/segmentation/file")
    return info, list(_remote_files(info, number, what, half_maps, masks, pdb_url))


def _remote_files(info, number, what, half_maps, masks, pdb_url) -> Iterator[_RemoteFile]:
    if "half-maps" in what:
        if len(half_maps) < 2:
            raise UserError(f"EMD-{number}: expected two half-maps, its description names {len(half_maps)}")
        for half in (1, 2):
            name = f"emd_{number}_half_map_{half}.map.gz"
            yield _RemoteFile(f"other/{name}", name, check_map_file, optional=False)
    if "mask" in what and masks:
        name = f"emd_{number}_msk_1.map"
        yield _RemoteFile(f"masks/{name}", name, check_map_file, optional=True)
    if "map" in what:
        name = f"emd_{number}.map.gz"
        yield _RemoteFile(f"map/{name}", name, check_map_file, optional=True)
    if "model" in what and info.pdb and re.fullmatch(r"\w{4}", info.pdb[0]):
        code = info.pdb[0]
        place = f"{pdb_url.rstrip('/')}/{code[1:3]}/{code}.cif.gz"
        yield _RemoteFile(place, "model.cif.gz", _check_model, optional=True)


def _check_model(path):
    """Check that a file is a gzipped mmCIF file with atoms."""
    try:
        with gzip.open(path) as stream:
            text = stream.read().decode("utf-8", errors="replace")
        structure = gemmi.make_structure_from_block(gemmi.cif.read_string(text).sole_block())
    except (OSError, EOFError, zlib.error, RuntimeError, ValueError) as error:
        raise path_error(path, f"expected a gzipped mmCIF file, found something else ({error})") from error
    if len(structure) == 0:
        raise no_atoms(path)


def _final_reconstruction(root):
    processing = root.find("{*}structure_determination_list/{*}structure_determination")
    for element in processing if processing is not None else ():
        final = element.find("{*}final_reconstruction")
        if final is not None:
            return final
    return None


def _text(element, path):
    found = None if element is None else element.find("/".join(f"{{*}}{step}" for step in path.split("/")))
    return found.text.strip() if found is not None and found.text else None


def parse_number(text: str | None) -> float | None:
    """Return a finite number, or None for anything else."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _contour_level(root):
    """Return the contour level that is marked as the primary one, or else the first."""
    contours = root.findall("{*}map/{*}contour_list/{*}contour")
    primary = [contour for contour in contours if contour.get("primary") == "true"]
    return parse_number(_text((primary or contours or [None])[0], "level"))


class FoundEntry(NamedTuple):
    """An entry that matches a query.

    Attributes:
        entry: `EMD-` and its number.
        resolution: Å; None if EMDB has none.
    """

    entry: str
    resolution: float | None


def search_emdb(query: str, *, search_url: str = SEARCH_URL, client: HttpClient | None = None) -> list[FoundEntry]:
    """Return the entries that match a query, by their number.

    Args:
        query: in EMDB's syntax, such as `structure_determination_method:"singleParticle" AND resolution:[* TO 4]`.
        search_url: address of the interface.
        client: for the request.

    Raises:
        UserError: the query is empty or not understood, the interface cannot be reached, or answers something else.
    """
    if not query.strip():
        raise UserError("query: expected one such as 'resolution:[2 TO 4] AND \"ribosome\"', found nothing")
    fields = urlencode({"rows": _ROWS, "fl": "emdb_id,resolution", "wt": "csv", "download": "false"})
    url = f"{search_url.rstrip('/')}/{quote(query, safe='')}?{fields}"
    text = (client or HttpClient()).read_text(url, accept="text/csv")
    rows = csv.DictReader(io.StringIO(text or ""))
    if "emdb_id" not in (rows.fieldnames or ()):
        begin = " ".join((text or "nothing").split())[:60]
        raise UserError(f"{search_url}: expected a table with the column emdb_id, found {begin!r}; check the query")
    found = {}
    for row in rows:
        if row["emdb_id"]:
            number = entry_number(row["emdb_id"])
            found[number] = FoundEntry(f"EMD-{number}", parse_number(row.get("resolution")))
    return [found[number] for number in sorted(found, key=int)]
