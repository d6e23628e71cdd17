"""Run one refinement with RELION, plain or with crefjax as its external reconstruction program."""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from crefjax.utils.atomic import write_json

NEEDED = ("mpirun", "relion_refine_mpi", "relion_external_reconstruct")
TIMES = "times.json"


def is_installed() -> bool:
    """Return whether RELION and MPI are on the path."""
    return all(shutil.which(name) for name in NEEDED)


def refine(
    particles: Path,
    name: str,
    *,
    diameter: float,
    seed: int,
    combine: str | None,
    low_pass: float = 30.0,
    keep: bool = False,
) -> None:
    """Refine a particle set from a low-passed reference, unless that was done; results are in `particles/name`.

    Args:
        particles: folder of the set; RELION is started in it.
        name: of the folder of the run.
        diameter: Å, of RELION's mask.
        seed: of RELION.
        combine: how `crefjax external-reconstruct` combines; None for a plain refinement, without external program.
        low_pass: Å, of the reference, which is the truth.
        keep: whether the data of every iteration stay, which `experiments.relion.combinations` needs.

    Raises:
        RuntimeError: RELION failed; its last words are told.
    """
    folder = particles / name
    if (folder / TIMES).is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    words = [
        *("mpirun", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "-np", "3", "relion_refine_mpi"),
        *("--o", f"{name}/run", "--auto_refine", "--split_random_halves", "--i", "particles.star"),
        *("--ref", "truth.mrc", "--ini_high", f"{low_pass:g}"),
        *("--ctf", "--ctf_corrected_ref", "--particle_diameter", f"{diameter:g}"),
        *("--flatten_solvent", "--zero_mask", "--healpix_order", "1", "--auto_local_healpix_order", "3"),
        *("--offset_range", "3", "--offset_step", "1", "--sym", "C1", "--low_resol_join_halves", "40", "--norm"),
        *("--scale", "--pad", "2", "--oversampling", "1", "--j", "1", "--pool", "3"),
        # Finer angles as soon as the resolution asks for them.
        *("--auto_ignore_angles", "--auto_resol_angles"),
        *("--dont_combine_weights_via_disc", "--random_seed", str(seed)),
    ]
    environment = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if combine is not None:
        words.append("--external_reconstruct")
        program = f"{sys.executable} -m crefjax external-reconstruct --device cpu --combine {combine}"
        environment |= {"RELION_EXTERNAL_RECONSTRUCT_EXECUTABLE": program}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), environment.get("PYTHONPATH")]))
    before, start = _children_seconds(), time.monotonic()
    with open(folder / "run.out", "wb") as log:
        done = subprocess.run(words, cwd=particles, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0 or not (folder / "run_class001.mrc").is_file():
        last = (folder / "run.out").read_text(errors="replace")[-500:]
        raise RuntimeError(f"{folder}: relion_refine_mpi ended with status {done.returncode}: {last}")
    iterations = len(list(folder.glob("run_it*_half1_model.star"))) - 1
    times = {"seconds": time.monotonic() - start, "cpu_seconds": _children_seconds() - before}
    write_json(folder / TIMES, times | {"iterations": iterations})
    if not keep:
        for path in folder.glob("run_it*_external_reconstruct_data_*.mrc"):
            path.unlink()  # the largest files


def _children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
