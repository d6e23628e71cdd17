"""Time and memory of `crefjax denoise --report` beside the same run without a report, each in its own process.

    python -m experiments.benchmarks.report --boxes 192 --weights W -o report.json

simulates a phantom in a cubic box, and then runs, from files to files: `halves`, the full map and both half-maps
denoised on the input's scale, which is the network alone; `signal`, the same on the signal's scale; `report`, that
with `--report`; and `local`, that with `--report --local`. A row gives seconds and peak resident memory, and the ratio
and the difference to `halves`.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from experiments.benchmarks.common import run_command, write_rows

RUNS = {
    "halves": ["--scale", "input"],
    "signal": ["--scale", "signal"],
    "report": ["--scale", "signal", "--report", "report"],
    "local": ["--scale", "signal", "--report", "report_local", "--local"],
}


def main(argv=None) -> int:
    """Measure what the command line asks for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[192], help="cubic boxes, voxels")
    parser.add_argument("--weights", required=True, help="name or folder of weights")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each, of which the fastest counts")
    parser.add_argument("-o", "--output", help="JSON file to write")
    arguments = parser.parse_args(argv)
    weights = str(Path(arguments.weights).absolute()) if Path(arguments.weights).exists() else arguments.weights
    rows = []
    print(f"{'box':>5} {'run':8} {'seconds':>8} {'GiB':>6}  beside `halves`")
    for box in arguments.boxes:
        with tempfile.TemporaryDirectory() as folder:
            simulate(box, folder)
            for name, options in RUNS.items():
                runs = [denoise(folder, weights, options) for _ in range(arguments.repeats)]
                row = {"box": box, "run": name, "seconds": min(s for s, _ in runs), "gib": max(g for _, g in runs)}
                first = next((row for row in rows if row["box"] == box), row)
                row |= {"seconds_ratio": row["seconds"] / first["seconds"], "more_gib": row["gib"] - first["gib"]}
                rows.append(row)
                print(
                    f"{box:5d} {name:8} {row['seconds']:8.1f} {row['gib']:6.2f}  time x{row['seconds_ratio']:.2f}, "
                    f"memory {row['more_gib']:+.2f} GiB",
                    flush=True,
                )
    write_rows(arguments.output, rows)
    return 0


def simulate(box: int, folder: str) -> None:
    """Write an entry of a phantom in the box."""
    command = ["simulate", "phantom", "-o", "entry", "--voxel-size", "1", "--resolution", "4", "--box", str(box)]
    subprocess.run([sys.executable, "-m", "crefjax", *command], cwd=folder, check=True, stderr=subprocess.DEVNULL)


def denoise(folder: str, weights: str, options: list[str]) -> tuple[float, float]:
    """Return seconds and peak GiB of one run of `crefjax denoise --halves`."""
    half_maps = ["entry/half_map_1.mrc", "entry/half_map_2.mrc"]
    command = [sys.executable, "-m", "crefjax", "denoise", *half_maps, "-o", "out.mrc", "--halves", "--overwrite"]
    seconds, peak, error = run_command([*command, "--weights", weights, *options], cwd=folder)
    if error:
        raise SystemExit(error)
    return seconds, peak


if __name__ == "__main__":
    sys.exit(main())
