"""`crefjax fetch`."""

from contextlib import ExitStack
from pathlib import Path

from crefjax.cli.common import add_verbosity
from crefjax.cli.messages import log, result, timed
from crefjax.utils.progress import progress_bar

EPILOG = "Files that exist already are not downloaded again."


def add_arguments(parser):
    """Add the arguments of `crefjax fetch`."""
    parser.add_argument("entry", metavar="ENTRY", help="EMDB entry, such as EMD-3488")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder to write (default: the name of the entry)")
    parser.add_argument("--server", metavar="URL", help="address of a mirror of the archive (default: EMDB at the EBI)")
    add_verbosity(parser)


def run(arguments) -> None:
    """Download an entry, and print the command that denoises it."""
    from crefjax.io.emdb import SERVER, entry_number, fetch_entry

    folder = Path(arguments.output or f"EMD-{entry_number(arguments.entry)}")
    with timed("downloading"), ExitStack() as stack:
        bars = {}

        def report(name, share):
            if name not in bars:
                bars[name] = stack.enter_context(progress_bar(name))
            bars[name](share)

        paths = fetch_entry(arguments.entry, folder, server=arguments.server or SERVER, report=report)
    for path in paths:
        result(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    mask = f" --mask {paths[2]}" if len(paths) > 2 else ""
    log(f"next: crefjax denoise {paths[0]} {paths[1]}{mask} -o {folder / 'denoised.mrc'}")
