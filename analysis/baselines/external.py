"""LAFTER, Topaz, Servalcat, and cryoRIDGE, if the user has them, called through their own command lines.

They get what each of their versions reads, float32 maps without an extended header and with axes in the usual order,
in a temporary folder in which they run and write; their maps are brought to the entry's grid and header.

    lafter --v1 half_map_1.mrc --v2 half_map_2.mrc --mask mask.mrc --downsample
        LAFTER 1.1. It takes cubic boxes only, writes `LAFTER_filtered.mrc` where it runs, and reports mistakes on
        standard output. 1.0 ignores `--downsample` and writes `lafter.mrc`, sampled twice as finely.

    topaz denoise3d full.mrc half_map_1.mrc half_map_2.mrc --output denoised --suffix .denoised
        Topaz 0.2.4 and later: `denoised/full.denoised.mrc` and so on. Without a suffix some versions fail. Its networks
        were trained on tomograms; it has its own scale and does not look at masks.

    servalcat util nemap --halfmaps half_map_1.mrc half_map_2.mrc --mask mask.mrc --output_prefix full
        Servalcat 0.4: the normalized expected map, `full_normalized_fo.mrc`, weighted in shells by the FSC within the
        mask and cut where it falls below 0. Half-maps by `--half1_only`, which takes the weights alone from the other.
        It sets the origin to zero.

    cryoridge features full.mrc --out features.npz --float32
    cryoridge reliability --reference full.mrc --half1 ... --half2 ... --features features.npz --contour C --out-dir out
        cryoRIDGE 0.8: no denoised map but a score of reliability, to compare with `crefjax denoise --local`; see
        `reliability`.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from analysis.framework.resample import read_resampled
from crefjax.errors import UserError
from crefjax.io.maps import Map, full_map, write_map

_LINES_PASSED_ON = 20  # of the output of a program that failed


class ProgramOutput(NamedTuple):
    """Maps that a program made of an entry.

    Attributes:
        full: its map, on the entry's grid.
        halves: its half-maps, or None.
        how: the full map was brought to the grid, in a few words.
        command: that was run.
        said: all that it wrote to standard output and error.
    """

    full: Map
    halves: tuple[Map, Map] | None
    how: str
    command: list[str]
    said: str


def find_program(program: str) -> str:
    """Return the path of a program.

    Args:
        program: a path, or a name that is looked up as a shell would.

    Raises:
        UserError: there is no such program.
    """
    path = shutil.which(program)
    if path is None:
        raise UserError(f"{program}: expected a program that can be run, found none of this name; give its path")
    return str(Path(path).absolute())


def lafter(pair: tuple[Map, Map], mask: np.ndarray, program: str, arguments: Sequence[str] = ()) -> ProgramOutput:
    """Run LAFTER.

    Args:
        pair: the half-maps.
        mask: `(z, y, x)`, 0 to 1.
        program: its path.
        arguments: further ones of its own.

    Raises:
        UserError: the box is not a cube, the program failed, or its output cannot be used.
    """
    shape = pair[0].array.shape
    if len(set(shape)) != 1:
        raise UserError(f"lafter: expected a cubic box, which is all it takes, found {shape} voxels; pad the half-maps")
    with tempfile.TemporaryDirectory(prefix="crefjax-lafter-") as folder:
        workdir = Path(folder)
        _write(workdir, pair[0], {"half_map_1": pair[0].array, "half_map_2": pair[1].array, "mask": mask})
        options = ["--v1", "half_map_1.mrc", "--v2", "half_map_2.mrc", "--mask", "mask.mrc", "--downsample"]
        command = [program, *options, *arguments]
        said = _run("lafter", command, workdir)
        full = _result("lafter", [workdir / "LAFTER_filtered.mrc", workdir / "lafter.mrc"], said, pair[0])
        return ProgramOutput(full.map, None, full.how, command, said)


def topaz(pair: tuple[Map, Map], mask: np.ndarray, program: str, arguments: Sequence[str] = ()) -> ProgramOutput:
    """Run Topaz's `denoise3d` on the full map and both half-maps.

    Args:
        pair: the half-maps.
        mask: not used.
        program: its path.
        arguments: further ones of its own, `--model unet-3d-20a`, `--device -1`.

    Raises:
        UserError: the program failed, or its output cannot be used.
    """
    first, second = (half_map.array for half_map in pair)
    maps = {"full": full_map(first, second), "half_map_1": first, "half_map_2": second}
    with tempfile.TemporaryDirectory(prefix="crefjax-topaz-") as folder:
        workdir, files = Path(folder), [f"{name}.mrc" for name in maps]
        _write(workdir, pair[0], maps)
        command = [program, "denoise3d", *files, "--output", "denoised", "--suffix", ".denoised", *arguments]
        said = _run("topaz", command, workdir)
        paths = [workdir / "denoised" / f"{name}.denoised.mrc" for name in maps]
        full, *halves = (_result("topaz", [path], said, pair[0]) for path in paths)
        return ProgramOutput(full.map, tuple(half_map.map for half_map in halves), full.how, command, said)


def servalcat(pair: tuple[Map, Map], mask: np.ndarray, program: str, arguments: Sequence[str] = ()) -> ProgramOutput:
    """Run Servalcat's `util nemap` on both half-maps, and for each half-map alone.

    Args:
        pair: the half-maps.
        mask: `(z, y, x)`, 0 to 1.
        program: its path.
        arguments: further ones of its own, `--local_fourier_weighting_with 0.05`.

    Raises:
        UserError: the program failed, or its output cannot be used.
    """
    first, second = ("half_map_1.mrc", "half_map_2.mrc")
    at_zero = Map.from_array(pair[0].array, pair[0].voxel_size)
    with tempfile.TemporaryDirectory(prefix="crefjax-servalcat-") as folder:
        workdir = Path(folder)
        _write(workdir, at_zero, {"half_map_1": pair[0].array, "half_map_2": pair[1].array, "mask": mask})
        commands, said, maps = [], [], []
        for name, halves, options in (
            ("full", (first, second), ()),
            ("half_1", (first, second), ("--half1_only",)),
            ("half_2", (second, first), ("--half1_only",)),
        ):
            files = ["--halfmaps", *halves, "--mask", "mask.mrc", "--output_prefix", name]
            commands.append([program, "util", "nemap", *files, *options, *arguments])
            said.append(_run("servalcat", commands[-1], workdir))
            maps.append(_result("servalcat", [workdir / f"{name}_normalized_fo.mrc"], said[-1], at_zero))
    full, *halves = (pair[0].replace_array(each.map.array) for each in maps)
    return ProgramOutput(full, tuple(halves), maps[0].how, commands[0], said[0])


def reliability(pair: tuple[Map, Map], program: str) -> np.ndarray:
    """Run cryoRIDGE, and return its score of reliability in every voxel, `(z, y, x)`, above 0 to 1.

    Its score is a rank among the voxels above a contour. The contour given to it is below all of them, so that no
    voxel is without a score.

    Args:
        pair: the half-maps.
        program: its path.

    Raises:
        UserError: the program failed, or its output cannot be used.
    """
    at_zero = Map.from_array(pair[0].array, pair[0].voxel_size)
    full = full_map(pair[0].array, pair[1].array)
    with tempfile.TemporaryDirectory(prefix="crefjax-cryoridge-") as folder:
        workdir = Path(folder)
        _write(workdir, at_zero, {"full": full, "half_map_1": pair[0].array, "half_map_2": pair[1].array})
        _run("cryoridge", [program, "features", "full.mrc", "--out", "features.npz", "--float32"], workdir)
        contour = float(full.min()) - max(float(np.ptp(full)), 1.0)
        files = ["--reference", "full.mrc", "--half1", "half_map_1.mrc", "--half2", "half_map_2.mrc"]
        options = ["--features", "features.npz", f"--contour={contour:g}", "--out-dir", "out", "--label", "score"]
        said = _run("cryoridge", [program, "reliability", *files, *options], workdir)
        return _result("cryoridge", [workdir / "out" / "score_reliability.mrc"], said, at_zero).map.array


PROGRAMS: dict[str, Callable[..., ProgramOutput]] = {"lafter": lafter, "topaz": topaz, "servalcat": servalcat}


def _write(folder, like, maps):
    for name, array in maps.items():
        plain = Map.from_array(array, like.voxel_size, like.origin)
        write_map(folder / f"{name}.mrc", plain, label="for another program")


def _run(name, command, folder):
    """Run a program to its end, and return its output; it is ended if an exception ends this function first."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise UserError(f"{name}: {command[0]} cannot be run ({error.strerror}); check that it is a program") from error
    if done.returncode:
        _pass_on(name, done.stdout)
        end = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise UserError(f"{name}: {command[0]} failed with {end}; see above for what it said")
    return done.stdout


def _result(name, paths, said, like):
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        _pass_on(name, said)
        raise UserError(f"{name}: expected it to write {paths[0].name}, found no such file; see above for what it said")
    try:
        return read_resampled(path, like)
    except UserError as error:
        raise UserError(f"{name}: its output cannot be used: {error}") from error


def _pass_on(name, said):
    """Print the last lines of a program, as it wrote them, before our own line."""
    lines = [line.rstrip() for line in said.replace("\r", "\n").split("\n") if line.strip()]
    for line in lines[-_LINES_PASSED_ON:]:
        print(f"{name}| {line}", file=sys.stderr)
    sys.stderr.flush()
