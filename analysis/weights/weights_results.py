"""Measure the package's own weights beside other methods, for docs/weights.md.

    python -m analysis weights_results DATA -o DIR [--published W]

DATA has `models/cryoem`, `models/docking`, `models/em`, `bench` (entries with outputs of other programs) and `maps`
(real maps and their models). With `--published`, the published weights (see `crefjax weights import`) are measured
beside them. This runs `simulated_benchmark`, `baselines` and `benchmark` over `bench`, `model_fsc` over the real maps,
and `robustness`, each with its own files in a folder of DIR, and puts their numbers together in

    results.md      tables, and on how many entries a number is above or below that of another method

If it is interrupted, the same command resumes, except for the last two. 40 minutes on two cores without the large
complexes; with them it was not timed.
"""

import csv
import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.baselines import baselines
from analysis.framework.output import FULL
from analysis.framework.study import Study, add_jobs, load_named
from analysis.metrics import benchmark, model_fsc
from analysis.weights import robustness, simulated_benchmark
from analysis.weights.simulated_benchmark import PUBLISHED
from crefjax.cli.main import main as crefjax
from crefjax.errors import UserError
from crefjax.utils.atomic import atomic_directory, write_bytes

OWN = ("truth", "cref")
# By a name for the table: a map and its model.
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


def _add_arguments(parser):
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with models/, bench/ and maps/")
    parser.add_argument("--published", metavar="W", help="name or folder of the published weights")
    add_jobs(parser)


def _run(arguments, output):
    data, folder = arguments.data, output.folder
    for part in ("models/cryoem", "models/docking", "models/em", "bench", "maps"):
        if not (data / part).is_dir():
            raise UserError(f"{data / part}: expected a folder, found none; give the folder that has it")
    if arguments.published and next(iter(load_named([arguments.published]))) != PUBLISHED:
        raise UserError(f"--published: expected a weights folder named {PUBLISHED}, found {arguments.published}")
    folder.mkdir(parents=True, exist_ok=True)
    weights = [*OWN, *([arguments.published] if arguments.published else [])]
    jobs = ["--jobs", str(arguments.jobs)]
    simulated = ["--weights", *weights, "-o", str(folder / "simulated"), *jobs]
    _call(simulated_benchmark.STUDY.main([str(data / "models"), *simulated]))
    entries = _bench(data / "bench", folder / "bench", jobs)
    real = _real(data / "maps", folder / "maps", arguments.published)
    robust = ["-o", str(folder / "robustness"), "--weights", *weights, "--overwrite"]
    _call(robustness.STUDY.main([str(data / "models"), *robust]))
    text = ["# Simulated entries", "", *compared(_rows(folder / "simulated/comparison/benchmark.csv"))]
    text += ["", "# Large complexes", "", *compared(_rows(folder / "simulated/comparison_large/benchmark.csv"))]
    text += ["", "# In solvent", "", *compared(_rows(folder / "simulated/comparison_in_solvent/benchmark.csv"))]
    text += ["", f"# {', '.join(entries)} of bench", "", *compared(_rows(folder / "bench/comparison/benchmark.csv"))]
    text += ["", "# Real maps", "", *real, "", "# Robustness", ""]
    text += [(folder / "robustness" / "robustness.md").read_text(encoding="utf-8")]
    write_bytes(folder / "results.md", "\n".join(text).encode())
    print(f"wrote {folder / 'results.md'}")


def _call(status):
    if status != 0:
        raise UserError("a step failed, see above; fix it and run again")


def _bench(source, folder, jobs):
    """Denoise and compare copies of the entries with their outputs, and return their names."""
    folder.mkdir(exist_ok=True)
    names = sorted(path.name for path in source.iterdir() if path.is_dir())
    for name in names:
        if not _same_maps(source / name, folder / name):
            with atomic_directory(folder / name) as new:
                shutil.copytree(source / name, new, copy_function=shutil.copyfile, dirs_exist_ok=True)
                for path in (new, *(path for path in new.rglob("*") if path.is_dir())):
                    path.chmod(path.stat().st_mode | 0o700)  # outputs are added to folders that may be read only
    paths = [str(folder / name) for name in names]
    _call(simulated_benchmark.denoise_entries(paths, load_named(OWN), jobs))
    _call(baselines.STUDY.main([*paths, "--method", "wiener", *jobs]))
    _call(benchmark.STUDY.main([*paths, "-o", str(folder / "comparison"), "--overwrite", *jobs]))
    return names


def _same_maps(entry, copy):
    """Return whether a copy of an entry exists and has the same maps."""
    maps = [path.name for path in entry.glob("*.mrc")]
    return copy.is_dir() and not any(filecmp.cmpfiles(entry, copy, maps, shallow=False)[1:])


def _real(maps, folder, published):
    """Return lines of a table: mean FSC to the model of every map, before and after."""
    folder.mkdir(exist_ok=True)
    weights = {PUBLISHED: published} if published else {}
    weights |= {name: name for name in OWN}
    lines = ["| map | as it is | " + " | ".join(weights) + " |", "|---" * (2 + len(weights)) + "|"]
    values = []
    for name, (file, model) in REAL.items():
        denoised = []
        for label, each in weights.items():
            path = folder / f"{file.split('.')[0]}--{label}.mrc"
            _call(crefjax(["denoise", str(maps / file), "-o", str(path), "--weights", each, "--overwrite"]))
            denoised += ["--denoised", f"{label}={path}"]
        out = folder / file.split(".")[0]
        call = [str(maps / file), "--model", str(maps / model), *denoised, "-o", str(out), "--overwrite"]
        _call(model_fsc.STUDY.main(call))
        values.append([float(row["model_fsc"]) for row in _rows(out / "model_fsc.csv")])
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values[-1]) + " |")
    return [*lines, "| mean | " + " | ".join(f"{value:.3f}" for value in np.mean(values, axis=0)) + " |"]


def _rows(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def compared(rows: Sequence[dict]) -> list[str]:
    """Return lines of a table of every number: means over entries, and entry by entry the mean FSC to the truth.

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
            numbers = [value.get((entry, method, key)) for entry in entries]
            numbers = [number for number in numbers if number is not None]
            cells.append(f"{np.mean(numbers):.{digits}f}" if numbers else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += ["", "| mean FSC to the truth | " + " | ".join(methods) + " |", "|---" * (1 + len(methods)) + "|"]
    for entry in entries:
        cells = [value.get((entry, method, "mean_fsc")) for method in methods]
        lines.append(f"| {entry} | " + " | ".join("" if cell is None else f"{cell:.3f}" for cell in cells) + " |")
    lines.append("")
    for name in (name for name in OWN if name in methods):
        for key, other, better in (
            ("mean_fsc", FULL, 1), ("mean_fsc", "lafter", 1), ("mean_fsc", PUBLISHED, 1), ("error", "wiener", -1),
            ("bias_share", f"{PUBLISHED}_calibrated", -1), ("added_share", f"{PUBLISHED}_calibrated", -1),
        ):  # fmt: skip
            pairs = [(value.get((entry, name, key)), value.get((entry, other, key))) for entry in entries]
            differences = [a - b for a, b in pairs if a is not None and b is not None]
            if differences:
                label, digits = COLUMNS[key]
                good = sum(better * difference >= 0 for difference in differences)
                way = "at least" if better > 0 else "at most"
                mean = f"{np.mean(differences):+.{digits + 1}f}"
                lines.append(
                    f"- {name}: {label} {way} that of {other} in {good} of {len(differences)}, {mean} on average"
                )
    return lines


def _number(text):
    return float(text) if text not in (None, "") else None


STUDY = Study(__name__, _run, _add_arguments, output="resumed")
