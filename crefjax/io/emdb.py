"""Download of an EMDB entry's half-maps and mask into an entry folder.

The Electron Microscopy Data Bank serves the files of entry EMD-N under `structures/EMD-N/`: half-maps as
`other/emd_N_half_map_1.map.gz` and `_2`, masks as `masks/emd_N_msk_1.map`. EMDB has required half-maps
since 2022; many older entries have none.
"""

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crefjax import __version__
from crefjax.errors import UserError
from crefjax.utils.atomic import atomic_write

SERVER = "https://ftp.ebi.ac.uk/pub/databases/emdb"
_CHUNK = 2**20
_SECONDS = 60  # without a byte from the server


def entry_number(name: str) -> str:
    """Return the number of an entry, given `EMD-1234`, `emd_1234` or `1234`.

    Raises:
        UserError: another name.
    """
    match = re.fullmatch(r"(?:emd[-_]?)?(\d{4,6})", name.strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"{name}: expected an EMDB entry such as EMD-3488, found something else; check the number")
    return match[1]


def fetch_entry(
    name: str,
    folder: Path,
    *,
    server: str = SERVER,
    report: Callable[[str, float], None] | None = None,
) -> list[Path]:
    """Download the half-maps of an entry, and its mask if it has one, under EMDB's own names.

    Files that are in the folder already are not downloaded again, so that an interrupted download continues with the
    next file. Files appear complete or not at all.

    Args:
        name: of the entry, `EMD-1234` or its number.
        folder: where to put the files; made if it does not exist.
        server: address of the archive or of a mirror of it.
        report: called with the name of a file and the share of it that has been received.

    Returns:
        The files of the entry in the folder.

    Raises:
        UserError: no such entry, no half-maps in it, no connection, a broken download, or a folder that cannot be
            written.
    """
    number = entry_number(name)
    base = f"{server.rstrip('/')}/structures/EMD-{number}"
    half_maps = [f"other/emd_{number}_half_map_{half}.map.gz" for half in (1, 2)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be made ({error.strerror}); choose another") from error
    paths = []
    try:
        for place in half_maps:
            path = folder / Path(place).name
            if not path.exists() and not _download(f"{base}/{place}", path, report):
                raise UserError(
                    f"EMD-{number}: expected {path.name} at {base}, found no such file; the entry has no half-maps, or "
                    "does not exist"
                )
            paths.append(path)
        mask = folder / f"emd_{number}_msk_1.map"
        if mask.exists() or _download(f"{base}/masks/{mask.name}", mask, report):
            paths.append(mask)
    finally:
        with suppress(OSError):  # it stays unless it is empty
            folder.rmdir()
    return paths


def _download(address, path, report):
    """Download a file to `path`; return whether the server has it."""
    with _network_errors(address):
        request = urllib.request.Request(address, headers={"User-Agent": f"crefjax/{__version__}"})
        try:
            answer = urllib.request.urlopen(request, timeout=_SECONDS)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return False
                raise
    with answer:
        size = int(answer.headers.get("Content-Length") or 0)
        with atomic_write(path, needed=size, overwrite=False, compress=False) as stream:
            received = 0
            while chunk := _read(answer, address):
                stream.write(chunk)
                received += len(chunk)
                if report is not None and size:
                    report(path.name, received / size)
            if size and received < size:
                raise UserError(f"{address}: expected {size} bytes, received {received}; try again")
    return True


def _read(answer, address):
    with _network_errors(address):
        return answer.read(_CHUNK)


@contextmanager
def _network_errors(address) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        raise UserError(f"{address}: the server refused ({error.code} {error.reason}); try again later") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{address}: no connection ({reason}); check the network and try again") from error
