"""The external reconstruction of a refinement: RELION's files, its own classical step, and the denoiser after it.

With `--external_reconstruct`, RELION 3.1, 4, and 5 write one STAR file for each half-map of each iteration, and one for
the joined map at the end. Paths in it are relative to the folder in which RELION was started, which is the working
folder of the program.

The classical result is written first, so that it remains whatever happens later. The denoiser runs in a process of its
own, so that not even its crash, or its being killed for lack of memory, reaches RELION, which ends the refinement at
any status other than 0.
"""

import glob
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np

from crefjax.errors import UserError, path_error
from crefjax.io.header import new_header
from crefjax.io.star import Block, find_block, find_number, find_numbers, find_text, read_star
from crefjax.relion import PROGRAM
from crefjax.utils.atomic import atomic_write
from crefjax.utils.statistics import extremes, mean_and_std

_GENERAL, _SPECTRA = "external_reconstruct_general", "external_reconstruct_tau2"
# ROOT_it012_half1_class001[_body001]_external_reconstruct.star; the last call of a refinement has no half.
_NAME = re.compile(
    r"(?P<root>.*)_it(?P<iteration>\d+)(?:_half(?P<half>[12]))?(?:_class\d+)?(?:_body\d+)?_external_rec.*"
)
_SECONDS = 3600.0  # after which a denoiser that hangs is given up


@dataclass(frozen=True)
class ExternalJob:
    """One call of the external reconstruction program.

    Attributes:
        star: the file that describes it.
        weight: path of the weights, float32 `(pad N, pad N, pad N / 2 + 1)`, FFTW's half with frequency 0 first.
        result: path at which RELION expects the map, on its scale.
        fudge: factor on the prior's variance (tau2_fudge).
        padding: padding factor of the arrays.
        box: N, the side of the map in voxels.
        current: size in voxels of the images that were used; frequencies beyond half of it hold nothing.
        tau2: `(shells,)`, variance of the signal in RELION's units, the prior of the classical step.
        fsc: `(shells,)`, of the half-maps; noisy, may be negative, 0 beyond the current size.
        half: 1 or 2; None for a map of all particles.
        voxel_size: Å.
        particle_diameter: Å; None if it is not known.
    """

    star: Path
    weight: Path
    result: Path
    fudge: float
    padding: float
    box: int
    current: int
    tau2: np.ndarray
    fsc: np.ndarray
    half: int | None
    voxel_size: float
    particle_diameter: float | None

    def beside(self, ending: str) -> Path:
        """Return a path beside the result, with this ending in place of its suffix."""
        return self.result.with_name(self.result.stem + ending)


@dataclass(frozen=True)
class ResultPaths:
    """The part of `ExternalJob` that is needed to run the classical step alone."""

    star: Path
    result: Path


def read_result_path(star: Path | str) -> ResultPaths:
    """Read where RELION expects the map, and nothing else.

    Raises:
        UserError: the file cannot be read, or is not of an external reconstruction.
    """
    star = Path(star)
    general = find_block(read_star(star), _GENERAL, star)
    return ResultPaths(star, Path(find_text(general, "rlnExtReconsResult", star)))


def read_job(star: Path | str) -> ExternalJob:
    """Read the file of one call, and from RELION's own files beside it what RELION 3.1 and 4 do not write there.

    Raises:
        UserError: a file is missing or not as RELION writes it, or the reference is not a volume.
    """
    star = Path(star)
    blocks = read_star(star)
    general, spectra = (find_block(blocks, name, star) for name in (_GENERAL, _SPECTRA))
    if (dimensions := find_number(general, "rlnReferenceDimensionality", star)) != 3:
        raise path_error(star, f"expected a reference of 3 dimensions, found {dimensions:g}")
    box = int(find_number(general, "rlnOriginalImageSize", star))
    named = _NAME.fullmatch(star.name)
    half = int(named["half"]) if named and named["half"] else None
    return ExternalJob(
        star=star,
        weight=Path(find_text(general, "rlnExtReconsWeight", star)),
        result=Path(find_text(general, "rlnExtReconsResult", star)),
        fudge=find_number(general, "rlnTau2FudgeFactor", star),
        padding=find_number(general, "rlnPaddingFactor", star),
        box=box,
        current=int(find_number(general, "rlnCurrentImageSize", star)),
        tau2=_spectrum(spectra, "rlnReferenceTau2", box, star),
        fsc=_spectrum(spectra, "rlnGoldStandardFsc", box, star),
        half=half,
        voxel_size=_voxel_size(general, star, half),
        particle_diameter=_particle_diameter(general, star),
    )


def _spectrum(block: Block, label: str, box: int, star: Path) -> np.ndarray:
    """Return the values of shells 0 to N / 2; 0 where the file has none."""
    index = find_numbers(block, "rlnSpectralIndex", star).astype(int)
    values = np.zeros(box // 2 + 1)
    kept = (index >= 0) & (index < len(values))
    values[index[kept]] = find_numbers(block, label, star)[kept]
    return values


def _voxel_size(general: Block, star: Path, half: int | None) -> float:
    if "rlnPixelSize" in general:
        return _positive(find_number(general, "rlnPixelSize", star), "rlnPixelSize", star)
    # A half's own model files only; a map of all particles has files without a half, or the first half's.
    endings = [f"_half{half}_model.star"] if half else ["_half1_model.star", "_model.star"]
    for path in _files_of_run(star, endings):
        blocks = read_star(path)
        if "rlnPixelSize" in blocks.get("model_general", {}):
            size = find_number(blocks["model_general"], "rlnPixelSize", path)
            return _positive(size, "rlnPixelSize", path)
    raise path_error(
        star,
        f"expected rlnPixelSize here or in a model file beside it (*{endings[0]}), found none; keep RELION's files",
    )


def _particle_diameter(general: Block, star: Path) -> float | None:
    for path in (star, *_files_of_run(star, ["_optimiser.star"])):
        block = general if path == star else read_star(path).get("optimiser_general", {})
        if "rlnParticleDiameter" in block:
            diameter = find_number(block, "rlnParticleDiameter", path)
            return diameter if diameter > 0 else None  # RELION's -1 is for the whole box
    return None


def _positive(value, label, path):
    if not value > 0:
        raise path_error(path, f"expected {label} above 0, found {value:g}; correct the file")
    return value


def _files_of_run(star: Path, endings: list[str]) -> list[Path]:
    """Return the files of earlier iterations of this run, or of any run in its folder (after --continue)."""
    named = _NAME.fullmatch(star.name)
    roots = [f"{glob.escape(named['root'])}_it*"] if named else []
    found: list[Path] = []
    for root in [*roots, "*_it*"]:
        for ending in endings:
            paths = sorted(star.absolute().parent.glob(f"{root}{ending}"))
            # `*_model.star` also finds the models of the halves, which a job of all particles may read.
            found += [path for path in paths if path not in found]
    return found


def read_volume(path: Path | str, shape: tuple[int, int, int]) -> np.ndarray:
    """Read an array of RELION, whose header has no voxel size and is not checked.

    Args:
        path: of the file.
        shape: that it must have.

    Returns:
        float32, `(z, y, x)`.

    Raises:
        UserError: the file is missing or unreadable, of another shape, or has values that are not finite.
    """
    path = Path(path)
    try:
        with mrcfile.open(path, permissive=True) as file:
            array = None if file.data is None else np.array(file.data, np.float32)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise path_error(path, f"expected an array of RELION, cannot be read ({why})") from error
    if array is None or array.shape != shape:
        found = "none" if array is None else array.shape
        raise path_error(path, f"expected an array of RELION of shape {shape}, found {found}")
    if not np.isfinite(array).all():
        raise path_error(path, "expected finite values, found NaN or infinite ones")
    return array


def write_volume(path: Path | str, array: np.ndarray, voxel_size: float) -> None:
    """Write a map as RELION does (mode 2); complete or not at all, an existing one is replaced.

    Args:
        path: of the file.
        array: `(z, y, x)`, float32.
        voxel_size: Å.

    Raises:
        UserError: values are not finite, or the file system refused.
    """
    array = np.ascontiguousarray(array, "<f4")
    if not np.isfinite(array).all():
        raise UserError(f"{path}: expected finite values to write, found NaN or infinite ones; nothing was written")
    header = new_header(array.shape, voxel_size).for_output((*extremes(array), *mean_and_std(array)))
    with atomic_write(Path(path), needed=len(header) + array.nbytes, overwrite=True, compress=False) as stream:
        stream.write(header)
        stream.write(array.tobytes())


def external_reconstruct(star: Path | str, regularize: Sequence[str] | None, *, program: str = PROGRAM) -> str:
    """Write the map that RELION asks for.

    Args:
        star: the file that describes the reconstruction.
        regularize: words of the command line that regularizes the result of the classical step; None for that step
            alone.
        program: the classical step.

    Returns:
        one line on what was done; if the command failed, why, and that the classical result was kept.

    Raises:
        UserError: the classical step failed, so that there is no result.
    """
    paths = read_result_path(star)
    run_classical(paths, program=program)
    if regularize is None:
        return "classical reconstruction"
    log = log_path(paths)
    try:
        done = subprocess.run(
            [*regularize], capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
        failed = done.returncode != 0
        # Warnings of libraries go to standard error, also where all is well.
        said = (done.stderr.strip() or done.stdout.strip()) if failed else done.stdout.strip()
        line = said.splitlines()[-1] if said else ""
        if failed:
            line = f"kept the classical reconstruction: the denoiser ended with status {done.returncode}: {line}"
    except (OSError, subprocess.SubprocessError) as error:
        line = f"kept the classical reconstruction: the denoiser could not be run: {error}"
    line = " ".join(line.split())
    _append(log, line)
    return line


def log_path(paths: ResultPaths) -> Path:
    """Return the path of the log of one reconstruction; halves have their own."""
    return paths.star.with_suffix(".log")


def run_classical(
    paths: ResultPaths, *, program: str = PROGRAM, output: Path | None = None, without_prior: bool = False
) -> None:
    """Run RELION's own reconstruction program.

    Args:
        paths: files of the reconstruction.
        program: its name or path.
        output: where to write; the result that RELION expects if None.
        without_prior: whether to reconstruct without RELION's prior.

    Raises:
        UserError: the program is missing or failed, or wrote nothing.
    """
    found = shutil.which(program)
    if found is None:
        raise UserError(f"{program}: expected RELION's reconstruction program, found none on the path; install RELION")
    output = output or paths.result
    output.unlink(missing_ok=True)  # a program that writes nothing must not pass for one that did
    words = [found, str(paths.star), "--o", str(output), *(["--no_map"] if without_prior else [])]
    # It calls no MPI, but is linked to it: it must not take itself for a rank of the run that started it.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMPI_COMM_", "PMIX_"))}
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", env=environment, check=False)
    if done.returncode != 0 or not output.is_file():
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        why = next((line.strip() for line in said if "ERROR" not in line), f"status {done.returncode}")
        raise path_error(paths.star, f"{program} failed ({why}); run it by hand to see why")


def own_command(star: Path | str, options: Sequence[str]) -> list[str]:
    """Return the words of the command that regularizes one result, in a process of its own."""
    return [sys.executable, "-m", "crefjax", "external-reconstruct", str(star), "--after-classical", *options]


def _append(log, line):
    try:
        with open(log, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:  # a log that cannot be written must not end the refinement
        print(f"crefjax: {log}: {error.strerror}", file=sys.stderr)
