"""A tiny dataset and the `crefjax train` that trains a tiny network on it, as a process of its own."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np

from crefjax.data.prepare import prepare
from helpers.training_config import tiny_config


def write_map(path, array, voxel=1.5):
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.asarray(array, np.float32))
        mrc.set_volume()
        mrc.voxel_size = voxel
    return path


def write_entry(folder, shape=(16, 16, 48), seed=0):
    """Half-maps of one smooth signal and their own noise, with a mask of all but a rim, and a truth."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    signal = random.standard_normal(shape)
    signal = sum(np.roll(signal, shift, axis) for axis in range(3) for shift in (-1, 0, 1))
    for half in (1, 2):
        write_map(folder / f"half_map_{half}.mrc", signal + 2 * random.standard_normal(shape))
    mask = np.zeros(shape, np.float32)
    mask[1:-1, 1:-1, 1:-1] = 1
    write_map(folder / "mask.mrc", mask)
    write_map(folder / "truth.mrc", signal)
    return folder


def write_run(folder):
    """`dataset` of 6 patches to train on and 3 held out, and `tiny.py`."""
    entries = [write_entry(folder / "entries" / f"e{number}", seed=number) for number in range(3)]
    prepare(entries, folder / "dataset", patch=16, stride=16, dtype="float32", validation=0.3)
    (folder / "tiny.py").write_text(tiny_config(epochs=3, width=4, threads=1, every_steps=1))
    return folder


def command(workdir, *more):
    arguments = ["train", "--config", "tiny.py", "--workdir", workdir, *more]
    return [sys.executable, "-m", "crefjax", *map(str, arguments)]


def start(folder, workdir, *more, environment=None):
    settings = {"cwd": folder, "env": os.environ | (environment or {}), "text": True}
    return subprocess.Popen(command(workdir, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)


def ended(folder, workdir, *more):
    """The same, waited for: exit status and what it said on standard error."""
    process = start(folder, workdir, *more)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def rows(workdir):
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError):  # of a line that is just being written
                found.append(json.loads(line))
    return found


def losses(workdir):
    """What is not a time, of every line."""
    clocks = ("seconds", "patches_per_second")
    return [{name: value for name, value in row.items() if name not in clocks} for row in rows(workdir)]


def arrays(folder):
    """Every array of a weights folder, by name."""
    from crefjax.weights.store import load_weights

    layers = load_weights(folder).parameters
    return {f"{layer}/{name}": np.asarray(array) for layer, named in layers.items() for name, array in named.items()}


def left_over(workdir):
    """Files that belong to no finished run."""
    return [
        str(path.relative_to(workdir))
        for path in Path(workdir).rglob("*")
        if ".crefjax-" in path.name or "tmp" in path.name or path.name == ".convergence.png"
    ]
