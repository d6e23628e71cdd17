"""Compare ways to combine the denoised half-map with the data, on the files that one refinement left behind.

    cd runs/relion/polymerase_1
    python -m experiments.relion.combinations none/run truth.mrc mask.mrc -o combinations.csv

takes the reconstructions of every iteration of a refinement with `--external_reconstruct` whose data were kept
(`experiments.relion.refine --ways none --keep`), regularizes each half-map in every way, and writes the mean FSC to the
truth over the shells up to the end of the denoiser. It says how much nearer to the truth one step comes, not what a
refinement makes of it. Start it in the folder in which RELION was started, to which RELION's paths are relative, with
this repository on PYTHONPATH.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from crefjax.errors import UserError
from crefjax.io.maps import read_map
from crefjax.relion import COMBINATIONS
from crefjax.relion.external import ResultPaths, read_job, read_volume, run_classical
from crefjax.relion.regularize import regularize, weights_on_grid
from crefjax.spectral.fsc import fsc_curve
from crefjax.weights.store import load_weights


def compare(star: Path, truth: np.ndarray, mask: np.ndarray, weights) -> list[dict]:
    """Return one row for every way: mean FSC to the truth up to the resolution, and beyond it.

    Args:
        star: of one half-map.
        truth: `(z, y, x)`.
        mask: the same shape.
        weights: of the network.

    Raises:
        UserError: the files are not there, or the resolution is too low to denoise.
    """
    job, scratch = read_job(star), star.with_name(f".{star.stem}.mrc")
    shape, side = truth.shape, int(job.box * job.padding)
    maps = []
    for without_prior in (False, True):
        run_classical(ResultPaths(star, job.result), output=scratch, without_prior=without_prior)
        maps.append(read_volume(scratch, shape))
        scratch.unlink()
    weight = weights_on_grid(read_volume(job.weight, (side, side, side // 2 + 1)), job)
    rows = []
    for name in ("classical", *COMBINATIONS):
        array, end = maps[0], None
        if name != "classical":
            found = regularize(job, *maps, weight, weights, combine=name)
            array, end = found.array, found.end
        fsc = fsc_curve(array, truth, job.voxel_size, mask, leveled=True).fsc
        rows.append({"star": star.name, "way": name, "fsc": fsc, "end": end})
    end = rows[-1]["end"]
    return [
        {
            "star": row["star"],
            "way": row["way"],
            "end": end,
            "until": float(row["fsc"][1:end].mean()),
            "all": float(row["fsc"][1:-1].mean()),
        }
        for row in rows
    ]


def main(argv=None) -> int:
    """Compare over all iterations of a refinement; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.relion.combinations", description=__doc__)
    parser.add_argument("run", type=Path, help="folder and name of the refinement, as given to relion_refine --o")
    parser.add_argument("truth", type=Path)
    parser.add_argument("mask", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="table to write")
    arguments = parser.parse_args(argv)
    truth, mask = (read_map(path).array for path in (arguments.truth, arguments.mask))
    weights, rows = load_weights(None), []
    for star in sorted(arguments.run.parent.glob(f"{arguments.run.name}_it*_half*_external_reconstruct.star")):
        try:
            rows += compare(star, truth, mask, weights)
        except UserError as error:
            print(f"{star.name}: {error}", file=sys.stderr)
            continue
        for row in rows[-1 - len(COMBINATIONS) :]:
            print(f"{row['star'][:22]} {row['way']:10} to shell {row['end']}: {row['until']:.4f}, all {row['all']:.4f}")
    with open(arguments.output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["star", "way", "end", "until", "all"])
        writer.writeheader()
        writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
