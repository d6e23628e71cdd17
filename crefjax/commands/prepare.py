"""`crefjax prepare`."""

import sys

from crefjax.data.grid import VOXELS
from crefjax.data.prepare import prepare
from crefjax.progress import progress_bar


def run(arguments) -> None:
    """Cut entries into patches as the command line says, and say what came out."""
    with progress_bar("preparing") as progress:
        manifest = prepare(
            arguments.entries,
            arguments.output,
            patch=arguments.patch,
            stride=arguments.stride,
            dtype=arguments.dtype,
            validation=arguments.validation,
            jobs=arguments.jobs,
            seed=arguments.seed,
            grid=VOXELS if arguments.grid == "data" else 0.0,
            voxel_size=arguments.voxel_size,
            insist=arguments.insist,
            overwrite=arguments.overwrite,
            report=lambda line: print(line, file=sys.stderr, flush=True),
            progress=progress,
        )
    for line in told(manifest):
        print(line)


def told(manifest):
    """What the user is told of a whole dataset, line by line."""
    entries, gib = manifest.entries, sum(s.bytes for entry in manifest.entries for s in entry.shards) / 2**30
    for split, patches in manifest.patches.items():
        count = len(manifest.of_split(split))
        yield f"{split}: {patches:,} patches of {count} {_entries(count)}"
    made = sum(entry.mask is None for entry in entries)
    if made:
        yield f"masks were made for {made} {_entries(made)} that came with none; how is told in manifest.json"
    if manifest.truth:
        yield "every patch has its truth"
    if manifest.left_out:
        names = ", ".join(manifest.left_out)
        yield f"left out {len(manifest.left_out)} of {len(entries) + len(manifest.left_out)}: {names}"
    yield f"{manifest.folder}: patches of {manifest.patch}³ voxels as {manifest.dtype}, {gib:.3g} GiB"


def _entries(count):
    return "entry" if count == 1 else "entries"
