"""The denoiser's step of an external reconstruction: read what RELION wrote, regularize, and replace the result."""

from pathlib import Path

from crefjax.errors import UserError
from crefjax.relion.contract import ExternalJob, ResultPaths, read_job, read_volume, write_volume
from crefjax.relion.external import run_classical
from crefjax.relion.regularize import Regularized, TooCoarseError, find_limits, regularize, weights_on_grid
from crefjax.utils.atomic import temporary_sibling
from crefjax.weights.store import load_weights


def regularize_result(star: Path, *, combine: str, weights: str | None, coarsest: float, program: str) -> str:
    """Regularize the result of a classical step, and replace it if it is of a half-map.

    The map of all particles stays RELION's own; the denoised one is written beside it as `*_denoised.mrc`.

    Args:
        star: the file that describes the reconstruction.
        combine: one of `regularize.COMBINATIONS`.
        weights: name or folder of the weights; None for the default of the package.
        coarsest: Å, resolution from which on the classical map is kept.
        program: RELION's, for the map without prior.

    Returns:
        one line on what was done.

    Raises:
        UserError: something cannot be read, or the map cannot be denoised; the result is as it was.
    """
    job = read_job(star)
    try:
        find_limits(job, coarsest)  # before any work
    except TooCoarseError as reason:
        return f"classical: {reason}"
    regularized = _regularized(job, combine, weights, coarsest, program)
    output = job.result if job.half else job.beside("_denoised.mrc")
    write_volume(output, regularized.array, job.voxel_size)
    explained = regularized.explained[1 : max(regularized.end, 2)].mean()
    return (
        f"{combine}: {output.name}, FSC-0.143 at {regularized.resolution:.2f} Å, trailing off from shell "
        f"{regularized.end} on, {explained:.2f} of the signal's power explained before"
    )


def _regularized(job: ExternalJob, combine, weights, coarsest, program) -> Regularized:
    shape = (job.box,) * 3
    classical = read_volume(job.result, shape)
    if not classical.any():
        raise UserError(f"{job.result}: expected a map, found 0 in every voxel")
    weight = None
    if combine == "prior":
        side = int(job.box * job.padding)
        weight = weights_on_grid(read_volume(job.weight, (side, side, side // 2 + 1)), job)
    with temporary_sibling(job.result) as hidden:
        unfiltered = hidden.with_suffix(".mrc")
        try:
            run_classical(ResultPaths(job.star, job.result), program=program, output=unfiltered, without_prior=True)
            unregularized = read_volume(unfiltered, shape)
        finally:
            unfiltered.unlink(missing_ok=True)
    loaded = load_weights(weights)
    return regularize(job, classical, unregularized, weight, loaded, combine=combine, coarsest=coarsest)
