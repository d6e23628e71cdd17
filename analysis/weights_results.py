"""Everything there is to measure of the package's own weights, beside other methods, in one run.

    python -m analysis.weights_results DATA -o DIR [--published W]

DATA has `models/cryoem`, `models/docking`, `models/em`, `bench` (entries with outputs of other programs) and `maps`
(real maps and their models). With `--published`, the published weights (see `crefjax weights import`) are measured
beside them. This runs `simulated_benchmark`, `baselines` and `benchmark` over `bench`, `map_model` over the real maps,
and `robustness`, each with its own files in a folder of DIR, and puts their numbers together in

    results.md      tables, and what is above or below what on how many entries

Killed and started again, it goes on where it was, but for the last two. 40 minutes on two
cores without the large complexes; with them it was not timed.
"""

import argparse
import csv
import filecmp
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis import baselines, benchmark, map_model, robustness, simulated_benchmark
from analysis.files import load_named, put, run_study
from analysis.simulated_benchmark import PUBLISHED
from crefjax.cli.main import main as crefjax
from crefjax.errors import UserError
from crefjax.utils.atomic import atomic_directory

NAME = "weights_results"
OWN = ("truth", "cref")
# Map, its model, and what to call it.
REAL = {
    "apoferritin": ("emd_20026_crop.mrc", "emd_20026_crop_3ajo.pdb.gz"),
    "3J6B chain": ("emd_2566_chain9.mrc", "emd_2566_chain9_3j6b.pdb.gz"),
    "T20S chain": ("t20s_4.8A_chainA.mrc", "t20s_4.8A_chainA.pdb.gz"),
    "actin": ("emd_5168.map", "emd_5168_3mfp.pdb.gz"),
}
COLUMNS = {
    "mean_fsc": ("mean FSC to the truth", 3),
    "least_gain": ("least gain in FSC of any shell", 3),
    "error": ("error against the truth", 4),
    "cref_rmse": ("RMSE to C_ref²", 3),
    "cref_rmse_box": ("RMSE to C_ref², whole box", 3),
    "bias_share": ("bias/signal up to FSC-0.143", 3),
    "added_share": ("added structure/signal up to FSC-0.143", 3),
    "added_share_beyond": ("added structure/signal beyond it", 2),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run it all; returns 0, or 2 after a mistake of the user's, told in one line."""
    parser = argparse.ArgumentParser(prog=f"python -m analysis.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with models/, bench/ and maps/")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder to write")
    parser.add_argument("--published", metavar="W", help="name or folder of the published weights")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="entries at a time; default: 1")
    return run_study(NAME, parser, _run, argv)


def _run(arguments):
    data, folder = arguments.data, arguments.output
    for part in ("models/cryoem", "models/docking", "models/em", "bench", "maps"):
        if not (data / part).is_dir():
            raise UserError(f"{data / part}: expected a folder, found none; give the folder that has it")
    if arguments.published and next(iter(load_named([arguments.published]))) != PUBLISHED:
        raise UserError(f"--published: expected a weights folder named {PUBLISHED}, found {arguments.published}")
    if arguments.jobs < 1:
        raise UserError(f"--jobs: expected at least 1, found {arguments.jobs}")
    folder.mkdir(parents=True, exist_ok=True)
    weights = [*OWN, *([arguments.published] if arguments.published else [])]
    jobs = ["--jobs", str(arguments.jobs)]
    simulated = ["--weights", *weights, "-o", str(folder / "simulated"), *jobs]
    _call(simulated_benchmark.main([str(data / "models"), *simulated]))
    entries = _bench(data / "bench", folder / "bench", jobs)
    real = _real(data / "maps", folder / "maps", arguments.published)
    robust = ["-o", str(folder / "robustness"), "--weights", *weights, "--overwrite"]
    _call(robustness.main([str(data / "models"), *robust]))
    text = ["# Simulated entries", "", *compared(_rows(folder / "simulated/comparison/benchmark.csv"))]
    text += ["", "# Large complexes", "", *compared(_rows(folder / "simulated/comparison_large/benchmark.csv"))]
    text += ["", f"# {', '.join(entries)} of bench", "", *compared(_rows(folder / "bench/comparison/benchmark.csv"))]
    text += ["", "# Real maps", "", *real, "", "# Robustness", ""]
    text += [(folder / "robustness" / "robustness.md").read_text(encoding="utf-8")]
    put(folder / "results.md", "\n".join(text).encode())
    print(f"wrote {folder / 'results.md'}")
    return 0


def _call(status):
    if status != 0:
        raise UserError("a step failed, see above; fix it and run again")


def _bench(source, folder, jobs):
    """Denoise and compare copies of the entries, with the outputs that they have."""
    folder.mkdir(exist_ok=True)
    names = sorted(one.name for one in source.iterdir() if one.is_dir())
    for name in names:
        if not _same_maps(source / name, folder / name):
            with atomic_directory(folder / name) as new:
                shutil.copytree(source / name, new, copy_function=shutil.copyfile, dirs_exist_ok=True)
                for one in (new, *(path for path in new.rglob("*") if path.is_dir())):
                    one.chmod(one.stat().st_mode | 0o700)  # outputs are added to what may be read only
    paths = [str(folder / name) for name in names]
    _call(simulated_benchmark.denoised(paths, load_named(OWN), jobs))
    _call(baselines.main([*paths, "--method", "wiener", *jobs]))
    _call(benchmark.main([*paths, "-o", str(folder / "comparison"), "--overwrite", *jobs]))
    return names


def _same_maps(one, copy):
    """Whether a copy of an entry is there and is still one of it."""
    maps = [path.name for path in one.glob("*.mrc")]
    return copy.is_dir() and not any(filecmp.cmpfiles(one, copy, maps, shallow=False)[1:])


def _real(maps, folder, published):
    """Lines of a table: mean FSC to the model of every map, before and after."""
    folder.mkdir(exist_ok=True)
    weights = {PUBLISHED: published} if published else {}
    weights |= {name: name for name in OWN}
    lines = ["| map | as it is | " + " | ".join(weights) + " |", "|---" * (2 + len(weights)) + "|"]
    values = []
    for name, (file, model) in REAL.items():
        denoised = []
        for label, one in weights.items():
            path = folder / f"{file.split('.')[0]}--{label}.mrc"
            _call(crefjax(["denoise", str(maps / file), "-o", str(path), "--weights", one, "--overwrite"]))
            denoised += ["--denoised", f"{label}={path}"]
        out = folder / file.split(".")[0]
        _call(
            map_model.main([str(maps / file), "--model", str(maps / model), *denoised, "-o", str(out), "--overwrite"])
        )
        found = {row["method"]: float(row["model_fsc"]) for row in _rows(out / "map_model.csv")}
        values.append(list(found.values()))
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in found.values()) + " |")
    return [*lines, "| mean | " + " | ".join(f"{value:.3f}" for value in np.mean(values, axis=0)) + " |"]


def _rows(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def compared(rows: Sequence[dict]) -> list[str]:
    """Lines of a table of every number: means over entries, and then entry by entry the mean FSC to the truth.

    Args:
        rows: of `benchmark.csv`, texts by name.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    entries = list(dict.fromkeys(row["entry"] for row in rows))
    value = {(row["entry"], row["method"], key): _number(row.get(key)) for row in rows for key in COLUMNS}
    lines = ["| mean over the entries | " + " | ".join(label for label, _ in COLUMNS.values()) + " |"]
    lines.append("|---" * (1 + len(COLUMNS)) + "|")
    for method in methods:
        cells = []
        for key, (_, digits) in COLUMNS.items():
            found = [one for entry in entries if (one := value.get((entry, method, key))) is not None]
            cells.append(f"{np.mean(found):.{digits}f}" if found else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += ["", "| mean FSC to the truth | " + " | ".join(methods) + " |", "|---" * (1 + len(methods)) + "|"]
    for entry in entries:
        cells = [value.get((entry, method, "mean_fsc")) for method in methods]
        lines.append(f"| {entry} | " + " | ".join("" if one is None else f"{one:.3f}" for one in cells) + " |")
    lines.append("")
    for name in (one for one in OWN if one in methods):
        for key, other, better in (
            ("mean_fsc", "full map", 1), ("mean_fsc", "lafter", 1), ("mean_fsc", PUBLISHED, 1), ("error", "wiener", -1),
            ("bias_share", f"{PUBLISHED}_calibrated", -1), ("added_share", f"{PUBLISHED}_calibrated", -1),
        ):  # fmt: skip
            pairs = [(value.get((entry, name, key)), value.get((entry, other, key))) for entry in entries]
            differences = [one - two for one, two in pairs if one is not None and two is not None]
            if differences:
                label, digits = COLUMNS[key]
                good = sum(better * one >= 0 for one in differences)
                way = "at least" if better > 0 else "at most"
                mean = f"{np.mean(differences):+.{digits + 1}f}"
                lines.append(
                    f"- {name}: {label} {way} that of {other} in {good} of {len(differences)}, {mean} on average"
                )
    return lines


def _number(text):
    return float(text) if text not in (None, "") else None


if __name__ == "__main__":
    sys.exit(main())
