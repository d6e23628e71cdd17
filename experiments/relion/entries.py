"""Write the half-maps of finished plain refinements as entry folders with known truth, for `analysis benchmark`.

    python -m experiments.relion.entries runs/relion -o runs/relion_entries
    python -m analysis benchmark runs/relion_entries/* -o runs/relion_benchmark

An entry has RELION's unfiltered half-maps, the truth and a mask in the frame to which the refinement drifted, and in
`refinement.json` the number of particles and the errors of their poses. No other half-maps with a known truth are as
realistic: their noise went through an alignment to the very maps that it is in.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np

from crefjax.io.maps import Map, read_map, write_map
from crefjax.io.star import read_star
from crefjax.relion.external import read_volume
from crefjax.utils.atomic import write_json
from experiments.relion.measure import aligned_truth, find_frame

_RUN, _INFO = "plain", "refinement.json"


def write_entry(particles: Path, folder: Path, run: str = _RUN) -> None:
    """Write the entry of one refinement; an earlier one is replaced.

    Args:
        particles: folder of the particle set.
        folder: of the entry.
        run: name of the folder of the run in the set.

    Raises:
        UserError: a file of the refinement is missing.
    """
    finished = particles / run
    frame = find_frame(particles / "poses.star", finished / "run_data.star")
    truth, mask = aligned_truth(particles, frame)
    voxel_size = read_map(particles / "truth.mrc").voxel_size
    maps = {"truth": truth, "mask": mask}
    for half in (1, 2):
        maps[f"half_map_{half}"] = read_volume(finished / f"run_half{half}_class001_unfil.mrc", truth.shape)
    made = json.loads((particles / "particles.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, array in maps.items():
        write_map(
            folder / f"{name}.mrc", Map.from_array(array, voxel_size), label=f"RELION, simulated particles: {name}"
        )
    info = {
        "model": made["model"],
        "particles": len(read_star(finished / "run_data.star")["particles"]["rlnImageName"]),
        "snr": made["snr"],
        "angle_median": float(np.median(frame.angles)),
        "offset_median": float(np.median(frame.offsets)),
    }
    write_json(folder / _INFO, info)


def main(argv=None) -> int:
    """Write the entries of all finished refinements without the denoiser; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.relion.entries", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder that `experiments.relion.refine` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the entries")
    parser.add_argument("--run", default=_RUN, help="which refinement of each set (default: %(default)s)")
    arguments = parser.parse_args(argv)
    finished = sorted(arguments.runs.glob(f"*/{arguments.run}/times.json"))
    if not finished:
        print(
            f"{arguments.runs}: expected finished refinements, found none; run experiments.relion.refine",
            file=sys.stderr,
        )
        return 2
    for times in finished:
        particles = times.parents[1]
        write_entry(particles, arguments.output / particles.name, arguments.run)
        print(f"wrote {arguments.output / particles.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
