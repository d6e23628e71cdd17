"""`crefjax fetch`."""

import sys
from contextlib import ExitStack
from pathlib import Path

from crefjax.io.emdb import SERVER, entry_number, fetch_entry
from crefjax.progress import progress_bar


def run(arguments) -> None:
    """Download an entry and say what can be done with it."""
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
