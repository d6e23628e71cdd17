"""`crefjax fetch`."""

import sys
from contextlib import ExitStack
from pathlib import Path

from crefjax.utils.progress import progress_bar

EPILOG = "Files that are there already are not downloaded again."


def add_arguments(parser):
    """Add the arguments of `crefjax fetch`."""
    parser.add_argument("entry", metavar="ENTRY", help="EMDB entry, such as EMD-3488")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder for the files (default: the entry's name)")
    parser.add_argument("--server", metavar="URL", help="mirror of the archive (default: EMDB's own at the EBI)")


def run(arguments) -> None:
    """Download an entry and say what can be done with it."""
    from crefjax.io.emdb import SERVER, entry_number, fetch_entry

    folder = Path(arguments.output or f"EMD-{entry_number(arguments.entry)}")
    with ExitStack() as stack:
        bars = {}

        def report(name, share):
            if name not in bars:
                bars[name] = stack.enter_context(progress_bar(name))
            bars[name](share)

        found = fetch_entry(arguments.entry, folder, server=arguments.server or SERVER, report=report)
    for path in found:
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    mask = f" --mask {found[2]}" if len(found) > 2 else ""
    print(f"next: crefjax denoise {found[0]} {found[1]}{mask} -o {folder / 'denoised.mrc'}", file=sys.stderr)
