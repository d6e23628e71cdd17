"""`crefjax fetch`."""

from pathlib import Path

from crefjax.cli.common import add_verbosity
from crefjax.cli.messages import log, result, timed, warn
from crefjax.errors import UserError
from crefjax.utils.memory import size_text
from crefjax.utils.progress import progress_bar

EPILOG = (
    "Files that are complete are not downloaded again, and what was interrupted is continued by the same command. An "
    "entry without half-maps, or one that cannot be downloaded, is reported and skipped; the exit status is then 1. "
    "https://www.ebi.ac.uk/emdb/documentation/search describes queries."
)
COMPILES = False


def add_arguments(parser):
    """Add the arguments of `crefjax fetch`."""
    parser.add_argument("entry", metavar="ENTRY", nargs="*", help="EMDB entry, such as EMD-3488")
    parser.add_argument("--list", metavar="FILE", help="also the entries of a text file, one in each line")
    parser.add_argument(
        "--query",
        metavar="TEXT",
        help="also the entries that match a query on EMDB's search interface, such as 'resolution:[* TO 4]'",
    )
    parser.add_argument("--save-list", metavar="FILE", help="write the entries as a list for --list, and stop")
    parser.add_argument(
        "-o", "--output", metavar="DIR", default=".", help="folder in which each entry gets a folder of its name"
    )
    parser.add_argument(
        "--what",
        metavar="PARTS",
        default="half-maps,mask",
        help="what to download, separated by commas: half-maps, mask, map (the deposited one), model (from the PDB)",
    )
    parser.add_argument("--jobs", metavar="N", type=int, default=4, help="downloads at once, at most 10")
    parser.add_argument(
        "--base-url", metavar="URL", help="address of the archive or a mirror (default: that of the EBI)"
    )
    parser.add_argument("--pdb-url", metavar="URL", help="address of the PDB's mmCIF files (default: the wwPDB's)")
    parser.add_argument("--search-url", metavar="URL", help="address of the search interface (default: EMDB's)")
    add_verbosity(parser)
    parser.set_defaults(interrupted=("the same command continues the downloads",))


def run(arguments) -> int:
    """Download entries; return 1 if some had to be skipped."""
    from crefjax.io.emdb import BASE_URL, PDB_URL, fetch_entries
    from crefjax.io.http import HttpClient

    client = HttpClient(connections=max(1, arguments.jobs))
    names = _names(arguments, client)
    if arguments.save_list:
        _save_list(Path(arguments.save_list), names, arguments.query)
        return 0
    what = [part.strip() for part in arguments.what.split(",") if part.strip()]
    fetched, skipped = 0, []
    with timed("downloading"), progress_bar("downloading") as progress:
        for name, found in fetch_entries(
            names,
            Path(arguments.output),
            what=what,
            base_url=arguments.base_url or BASE_URL,
            pdb_url=arguments.pdb_url or PDB_URL,
            jobs=arguments.jobs,
            client=client,
            progress=progress,
        ):
            if isinstance(found, UserError):
                if len(names) == 1:
                    raise found
                skipped.append(name)
                log(f"skipped {name}: {found}")
            else:
                fetched += 1
                _show(found)
    if skipped:
        warn(f"{len(skipped)} of {fetched + len(skipped)} entries were skipped; the lines above say why")
    return 1 if skipped else 0


def _names(arguments, client):
    """Return the entries of the command line, of a list, and of a query, once each."""
    from crefjax.io.emdb import SEARCH_URL, entry_number, read_list, search_emdb

    names = [f"EMD-{entry_number(name)}" for name in arguments.entry]
    if arguments.list:
        names += read_list(Path(arguments.list))
    if arguments.query is not None:
        with timed("searching"):
            found = search_emdb(arguments.query, search_url=arguments.search_url or SEARCH_URL, client=client)
        log(f"{len(found)} entries match the query")
        names += [entry.entry for entry in found]
    if not names:
        raise UserError("fetch: expected an entry such as EMD-3488, --list, or --query, found no entry; name one")
    return list(dict.fromkeys(names))


def _save_list(path, names, query):
    from crefjax.utils.atomic import write_bytes

    head = f"# {' '.join(query.split())}\n" if query else ""
    write_bytes(path, (head + "".join(f"{name}\n" for name in names)).encode())
    result(f"{path}: {len(names)} entries")


def _show(entry):
    info = entry.info
    facts = [size_text(sum(file.bytes for file in entry.files))]
    facts += [f"{info.resolution:g} Å"] if info.resolution else []
    result(f"{entry.folder}: {', '.join(file.path.name for file in entry.files)} ({', '.join(facts)})")
    halves = [file.path for file in entry.files if "half_map" in file.path.name]
    masks = [file.path for file in entry.files if "_msk_" in file.path.name]
    if len(halves) == 2:
        mask = f" --mask {masks[0]}" if masks else ""
        log(f"next: crefjax denoise {halves[0]} {halves[1]}{mask} -o {entry.folder / 'denoised.mrc'}")
