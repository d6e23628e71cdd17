"""Maps for the command-line tests, made with NumPy and mrcfile alone, and functions that run the command."""

import bz2
import contextlib
import gzip
import hashlib
import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np

from crefjax.cli import main as cli

OPENERS = {".gz": gzip.open, ".bz2": bz2.open}


@dataclass
class Outcome:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def run_crefjax(*argv) -> Outcome:
    """Run the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(argument) for argument in argv])
        except SystemExit as stop:  # argparse
            status = stop.code
    return Outcome(status or 0, out.getvalue(), err.getvalue())


def run_ok(*argv) -> Outcome:
    """Run a command that must succeed."""
    outcome = run_crefjax(*argv)
    if outcome.status != 0:
        raise AssertionError(f"status {outcome.status}: {outcome.err}")
    return outcome


def tree(folder) -> dict:
    """Return the entries under a folder, hidden ones too: checksums of files, targets of links."""
    entries = {}
    for path in sorted(Path(folder).rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            entries[name] = os.readlink(path)
        elif path.is_file():
            entries[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            entries[name] = "folder" if path.is_dir() else "other"
    return entries


def error_line(err: str, status: int) -> str:
    """Return the message of a refusal: the last line, the only one of the command itself, without a traceback."""
    assert status == 2, (status, err)
    assert "Traceback" not in err
    lines = err.rstrip("\n").split("\n")
    assert lines[-1].startswith("crefjax"), err
    assert ":" in lines[-1]
    usage = any(line.startswith("usage: ") for line in lines)
    if not usage:
        assert lines[-1].startswith("crefjax: "), err
        assert [line for line in lines if "rror" in line.split(":")[0]] == [], err
        assert sum(line.startswith("crefjax: ") and "warning" not in line for line in lines) == 1, err
    assert "object at 0x" not in err
    return lines[-1]


def assert_refused(folder, *argv, names=()) -> str:
    """Run a command that must be refused without a change under `folder`, and return the message."""
    before = tree(folder)
    outcome = run_crefjax(*argv)
    assert tree(folder) == before, outcome.err
    message = error_line(outcome.err, outcome.status)
    for name in [names] if isinstance(names, str) else names:
        assert name in message, message
    return message


def densities(shape=(20, 17, 23), noise=0.3, seed=0):
    """Return two half-maps (z, y, x): the same soft body off the center, with independent noise."""
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = 3 * np.exp(-8 * ((z - 0.1) ** 2 + (y + 0.15) ** 2 + (x - 0.05) ** 2))
    body = body + np.exp(-30 * ((z + 0.3) ** 2 + y**2 + (x + 0.2) ** 2))
    return tuple((body + noise * random.standard_normal(shape)).astype("f4") for _ in range(2))


def file_order(axes):
    """Return the transposition of a (z, y, x) array into sections, rows and columns of `axes` (MAPC, MAPR, MAPS)."""
    return tuple(3 - axis for axis in reversed(axes))


def write(
    path, zyx, *, voxel=1.5, axes=(1, 2, 3), origin=(0, 0, 0), nstart=(0, 0, 0), labels=(), extended=b"", **words
):
    """Write an MRC file of a (z, y, x) array; `voxel` may be three values, x, y, z, and `words` are header fields."""
    path = Path(path)
    data = np.ascontiguousarray(np.asarray(zyx).transpose(file_order(axes)))
    plain = path.with_name(path.name + ".plain")
    with warnings.catch_warnings(), mrcfile.new(plain) as mrc:
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN and infinite voxels are written on purpose
        mrc.set_data(data)
        mrc.set_volume()
        if extended:
            mrc.set_extended_header(np.frombuffer(extended, "V1"))
            mrc.header.exttyp = b"SERI"
        h = mrc.header
        h.mapc, h.mapr, h.maps = axes
        h.mx, h.my, h.mz = zyx.shape[::-1]
        size = np.broadcast_to(np.asarray(voxel, "f4"), 3)
        h.cella.x, h.cella.y, h.cella.z = (n * v for n, v in zip(zyx.shape[::-1], size, strict=True))
        h.origin.x, h.origin.y, h.origin.z = origin
        h.nxstart, h.nystart, h.nzstart = nstart
        h.label[:] = b""
        h.label[: len(labels)] = labels
        h.nlabl = len(labels)
        for word, value in words.items():
            h[word] = value
    raw = plain.read_bytes()
    plain.unlink()
    with OPENERS.get(path.suffix, open)(path, "wb") as file:
        file.write(raw)
    return path


def read(path):
    """Return the (z, y, x) array of an MRC file, in float64, and its header."""
    with mrcfile.open(path) as mrc:
        h = mrc.header.copy()
        axes = (int(h.mapc), int(h.mapr), int(h.maps))
        return mrc.data.transpose(np.argsort(file_order(axes))).astype("f8"), h


def labels_of(header):
    return [bytes(label).rstrip(b"\0 ") for label in header.label[: int(header.nlabl)]]


def valid(path) -> bool:
    """Return whether a file passes the validation of mrcfile."""
    with open(os.devnull, "w") as nowhere:
        return mrcfile.validate(path, print_file=nowhere)


def relative(a, b) -> float:
    """Return the relative L2 difference of a from b."""
    return float(np.linalg.norm(np.asarray(a, "f8") - b) / np.linalg.norm(b))
