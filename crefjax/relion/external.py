"""The external reconstruction of a refinement: RELION's own classical step, and the denoiser after it.

The classical result is written first, so that it stays whatever happens then. The denoiser runs in a process of its
own: not even a crash of it, or the kernel that kills it for memory, reaches RELION, for which a status other than 0
ends the refinement.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from crefjax.errors import UserError, path_error
from crefjax.relion.contract import ResultPaths, read_result_path

PROGRAM = "relion_external_reconstruct"
_SECONDS = 3600.0  # after which a denoiser that hangs is given up


def reconstruct(star: Path | str, regularize: Sequence[str] | None, *, program: str = PROGRAM) -> str:
    """Write the map that RELION asks for.

    Args:
        star: the file that describes the reconstruction.
        regularize: words of the command that regularizes the result of the classical step; None for that step alone.
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
        paths: of the job.
        program: its name or path.
        output: where to write; the result that RELION expects if None.
        without_prior: whether the map is not regularized.

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
