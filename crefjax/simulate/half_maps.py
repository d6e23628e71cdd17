"""Half-map pairs whose signal is known exactly, with a masked FSC that crosses 0.143 where it is asked to."""

import functools
import itertools
import json
import math
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from crefjax import __version__
from crefjax.errors import UserError
from crefjax.io.files import check_output_folder
from crefjax.io.maps import Map, write_map
from crefjax.simulate.atoms import Atoms, translate_atoms, write_model
from crefjax.simulate.density import next_fast_len
from crefjax.simulate.imaging import Particles
from crefjax.simulate.noise import (
    THRESHOLD,
    NoiseLevelSolver,
    NoiseSpectrum,
    colored_noise,
    is_near,
    modulation,
    white_spectrum,
)
from crefjax.simulate.reconstruction import memory_needed, reconstruct_signal_and_noise
from crefjax.simulate.specimen import Belt, Flexible, belt_density, sample_conformations, specimen_density, truth_mask
from crefjax.spectral.fsc import fsc_curve
from crefjax.utils.atomic import atomic_directory, is_disk_full
from crefjax.utils.memory import GIB, free_memory
from crefjax.utils.progress import ProgressCallback

LEAST_MARGIN = 5.0  # Å between the outermost atom's centre and the border of the box
LEAST_VOXEL = 0.5  # Å; the form factors of atoms with high B-factors cannot be told apart at finer frequencies
LARGEST_BOX = 800  # voxels; the grid of the density, 1.5 times as fine, then still has fewer than 2^31
_PROGRAM_BYTES = 0.4 * GIB  # resident memory of Python, JAX and its compiled code
_REPORT = "entry.json"
_ATTEMPTS = 12  # with other noise, where a curve that scatters jumps over the resolution asked for


@dataclass(frozen=True, eq=False)
class SimulationConfig:
    """How a pair is made, but for its model.

    Attributes:
        voxel_size: Å.
        resolution: Å, where the masked FSC of the half-maps shall cross 0.143.
        seed: of everything random.
        box: voxels, of the cubic box; None for the smallest even one of factors 2, 3 and 5 that has the margin.
        margin: Å around the model (and its belt), for a box that is chosen.
        b_factor: Å², a blur of the whole signal; below 0 it is sharpened, but no atom beyond `atoms.LEAST_B`.
        noise: its spectrum (additive method).
        unevenness: of the noise over the box (additive method); see `noise.modulation`.
        belt: disordered density that is the same in both half-maps and in the truth; None for none.
        flexible: a part of the model that moves; None for none.
        method: noise added to the truth, or reconstruction from simulated images.
        particles: what is imaged and how (reconstruction method).
        refinements: of the reconstruction; see `reconstruct_signal_and_noise`.
    """

    voxel_size: float
    resolution: float
    seed: int = 0
    box: int | None = None
    margin: float = 15.0
    b_factor: float = 60.0
    noise: NoiseSpectrum = field(default_factory=white_spectrum)
    unevenness: float = 0.0
    belt: Belt | None = None
    flexible: Flexible | None = None
    method: Literal["additive", "reconstruction"] = "additive"
    particles: Particles = field(default_factory=Particles)
    refinements: int = 1


@dataclass(frozen=True, eq=False)
class Simulation:
    """Half-maps with their truth; all arrays float32 `(z, y, x)` of one cubic box, whose first voxel is at 0, 0, 0.

    Attributes:
        half_map_1: signal and noise.
        half_map_2: the same signal, other noise.
        mask: soft, 0 to 1, under which the FSC was set.
        truth: the signal without any noise.
        voxel_size: Å.
        atoms: the model at the box's coordinates.
        report: every parameter, and the FSC reached: what `entry.json` says.
    """

    half_map_1: np.ndarray
    half_map_2: np.ndarray
    mask: np.ndarray
    truth: np.ndarray
    voxel_size: float
    atoms: Atoms
    report: dict


def simulate_half_maps(
    atoms: Atoms, settings: SimulationConfig, *, progress: ProgressCallback | None = None
) -> Simulation:
    """Make two half-maps of a model, with the truth and a mask.

    The model is moved to the middle of a box whose first voxel is at 0, 0, 0. The same settings give the same arrays
    on CPUs of one kind; on a GPU sums have no fixed order, and they agree to rounding.

    Args:
        atoms: the model.
        settings: everything else.
        progress: shows the share of the images that is done (reconstruction method).

    Raises:
        UserError: a setting is out of range, the resolution is beyond Nyquist, the box is too small for the model or
            too large for the memory, or no level of noise gives the resolution.
    """
    _check(settings)
    where = sample_conformations(atoms, settings.flexible, settings.seed)
    reached = where.positions(atoms)
    middle = (reached.min(0) + reached.max(0)) / 2
    side = _choose_box(_extent(reached, middle, settings), settings)
    if settings.method == "reconstruction":
        check_memory(side, next(iter(jnp.zeros(()).devices())))
    shift = np.round(side * settings.voxel_size / 2 - middle, 3)
    atoms = translate_atoms(atoms, shift)
    where = sample_conformations(atoms, settings.flexible, settings.seed)  # the same about the hinge, now in the box

    key = jax.random.key(settings.seed)
    truth = _truth(jax.random.fold_in(key, 0), atoms, where, (side,) * 3, settings)
    mask = truth_mask(truth, settings.voxel_size)
    noise_key = jax.random.fold_in(key, 1)
    if settings.method == "reconstruction":
        halves, level = _reconstructed(noise_key, truth, mask, settings, progress)
    else:
        halves, level = _additive(noise_key, truth, mask, settings)
    halves = [np.asarray(half, np.float32) for half in halves]
    report = _report(atoms, shift, halves, mask, level, settings)
    return Simulation(*halves, mask, truth, settings.voxel_size, atoms, report)


def _check(settings):
    voxel_size, resolution = settings.voxel_size, settings.resolution
    if not (math.isfinite(voxel_size) and LEAST_VOXEL <= voxel_size <= 100):
        raise UserError(
            f"simulate: expected a voxel size of {LEAST_VOXEL:g} to 100 Å, found {voxel_size:g}; correct it"
        )
    if not (math.isfinite(resolution) and resolution > 2 * voxel_size):
        raise UserError(
            f"simulate: expected a resolution above {2 * voxel_size:g} Å, twice the voxel size (Nyquist), found "
            f"{resolution:g} Å; ask for a coarser one or take smaller voxels"
        )
    if settings.method not in ("additive", "reconstruction"):
        raise UserError(f"simulate: expected the method additive or reconstruction, found {settings.method!r}")
    if not 0 <= settings.seed < 2**32:
        raise UserError(f"simulate: expected a seed from 0 to 4294967295, found {settings.seed}; choose another")
    if not (math.isfinite(settings.b_factor) and abs(settings.b_factor) <= 1000):
        raise UserError(f"simulate: expected a B-factor of at most 1000 Å², found {settings.b_factor:g}; correct it")
    if not 0 <= settings.unevenness <= 2:
        raise UserError(f"simulate: expected an unevenness of 0 to 2, found {settings.unevenness:g}; correct it")
    if not 0 <= settings.margin <= 1000:
        raise UserError(f"simulate: expected a margin of 0 to 1000 Å, found {settings.margin:g}; correct it")


def _extent(reached, middle, settings):
    """How large a box the atoms' centres take, Å: a model that is turned to be imaged takes a sphere."""
    if settings.method == "reconstruction":
        return 2 * float(np.linalg.norm(reached - middle, axis=1).max())
    return float(np.ptp(reached, axis=0).max())


def _choose_box(extent, settings):
    """The side of the box in voxels: the one given, if the model fits, or one with the margin."""
    belt = settings.belt.width if settings.belt else 0.0
    least = next_fast_len((extent + 2 * LEAST_MARGIN) / settings.voxel_size)
    side = settings.box
    if side is None:
        side = max(next_fast_len((extent + 2 * (settings.margin + belt)) / settings.voxel_size), least)
    elif side < (extent + 2 * LEAST_MARGIN) / settings.voxel_size:
        raise UserError(
            f"simulate: expected a box of at least {least} voxels for a model of {extent:.4g} Å at "
            f"{settings.voxel_size:g} Å a voxel, found {side}; take a larger box or leave it out to have it chosen"
        )
    if side > LARGEST_BOX:
        raise UserError(
            f"simulate: expected a box of at most {LARGEST_BOX} voxels, found {side}; take larger voxels, or a smaller "
            "box or margin"
        )
    shell = side * settings.voxel_size / settings.resolution
    if not 3 <= shell <= side // 2 - 1:
        finest = 2 * settings.voxel_size * (side / 2) / (side // 2 - 1)
        raise UserError(
            f"simulate: expected a resolution of {finest:.4g} to {side * settings.voxel_size / 3:.4g} Å in a box of "
            f"{side} voxels, found {settings.resolution:g} Å; ask for another"
        )
    return side


def check_memory(side: int, device: jax.Device) -> None:
    """Raises UserError where a device has no memory left to reconstruct half-maps of this side in voxels."""
    needed = memory_needed(side) + (_PROGRAM_BYTES if device.platform == "cpu" else 0)
    if needed > (free := free_memory(device)):
        raise UserError(
            f"simulate: expected {needed / GIB:.1f} GiB of memory to reconstruct a box of {side} voxels a side, found "
            f"{free / GIB:.1f} GiB free; take larger voxels, a smaller box or margin, or --method additive"
        )


def _truth(key, atoms, where, shape, settings):
    extra = settings.flexible.b_factor if settings.flexible else 0.0
    truth = specimen_density(atoms, where, shape, settings.voxel_size, b_factor=settings.b_factor, extra_b_factor=extra)
    if settings.belt:
        truth = truth + belt_density(key, truth, atoms, settings.belt, settings.voxel_size)
    return truth


@functools.partial(jax.jit, static_argnums=1)
def _noise_pair(key, shape, voxel_size, spectrum, unevenness):
    keys = jax.random.split(key, 3)
    factor = modulation(keys[2], shape, unevenness)
    return [colored_noise(one, shape, voxel_size, spectrum) * factor for one in keys[:2]]


def _additive(key, truth, mask, settings):
    """Two half-maps, and what was found: the level of the noise."""
    spectrum = NoiseSpectrum(settings.noise.frequency, settings.noise.amplitude)  # a name would be compiled for
    tried = []
    for attempt in range(_ATTEMPTS):
        noises = _noise_pair(
            jax.random.fold_in(key, attempt), truth.shape, settings.voxel_size, spectrum, settings.unevenness
        )
        pair = NoiseLevelSolver((truth, truth), noises, mask, settings.voxel_size)
        level, found = pair.solve(settings.resolution)
        if is_near(found, settings.resolution):
            halves = [truth + np.float32(level) * np.asarray(noise) for noise in noises]
            return halves, {"noise_deviation": level, "noise_attempt": attempt}
        tried.append(found)
    raise UserError(
        f"simulate: no level of the noise ({settings.noise.name}) lets the FSC cross {THRESHOLD} at "
        f"{settings.resolution:g} Å, the nearest was {_nearest(tried, settings):.3g} Å; ask for another "
        "resolution, or choose noise that falls off less towards high frequencies"
    )


def _reconstructed(key, truth, mask, settings, progress):
    """Two half-maps from simulated images, and what was found: the deviation of the images' noise.

    Reconstruction is linear in the images, so that one reconstruction of signal and noise apart serves every level.
    Noise with its sign turned, or shifted in the box, is other noise, for nothing.
    """
    more = {"refinements": settings.refinements, "progress": progress}
    parts = reconstruct_signal_and_noise(truth, settings.voxel_size, key, settings.particles, **more)
    signals = parts.signal_1, parts.signal_2
    tried = []
    side = truth.shape[0]
    for attempt, (turn, sign) in enumerate(itertools.product(range(_ATTEMPTS // 2), (1, -1))):
        shifts = (turn * side // 6, turn * side // 4, turn * side // 3)
        noises = [parts.noise_1, sign * jnp.roll(parts.noise_2, shifts, (0, 1, 2))]
        sigma, found = NoiseLevelSolver(signals, noises, mask, settings.voxel_size).solve(settings.resolution)
        if is_near(found, settings.resolution):
            halves = [signal + np.float32(sigma) * noise for signal, noise in zip(signals, noises, strict=True)]
            snr = float(parts.projection_variance) / sigma**2
            return halves, {"image_noise_deviation": sigma, "image_snr": snr, "noise_attempt": attempt}
        tried.append(found)
    raise UserError(
        f"simulate: no signal-to-noise ratio of the images lets the FSC cross {THRESHOLD} at "
        f"{settings.resolution:g} Å, the nearest was {_nearest(tried, settings):.3g} Å; ask for another resolution, "
        "more particles or smaller errors of pose and shift"
    )


def _nearest(tried, settings):
    return min(tried, key=lambda one: abs(one - settings.resolution))


def _report(atoms, shift, halves, mask, level, settings):
    curve = fsc_curve(*halves, settings.voxel_size, mask)
    parameters = {name: _plain(value) for name, value in vars(settings).items()}
    unused = ("noise", "unevenness") if settings.method == "reconstruction" else ("particles", "refinements")
    for name in unused:
        del parameters[name]
    return {
        "program": f"crefjax {__version__}",
        "model": atoms.source,
        "atoms": len(atoms),
        "shift": [float(value) for value in shift],
        "box": list(mask.shape),
        "parameters": parameters,
        "level": level,
        "mask_fraction": round(float(np.mean(mask >= 0.5)), 6),
        "resolution_reached": round(curve.resolution(THRESHOLD).angstrom, 4),
        "frequency": [round(float(value), 7) for value in curve.frequency],
        "fsc": [round(float(value), 6) for value in curve.fsc],
    }


def _plain(value):
    """A setting as JSON knows it."""
    if isinstance(value, NoiseSpectrum):
        return value.name
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return value


def check_entry_folder(folder, *, overwrite: bool = False) -> None:
    """Check, before long work, that an entry can be written, as `check_output_folder` does."""
    check_output_folder(folder, "a simulated entry", _REPORT, overwrite=overwrite)


def write_entry(folder, simulation: Simulation, *, overwrite: bool = False) -> None:
    """Write `half_map_1.mrc`, `half_map_2.mrc`, `mask.mrc`, `truth.mrc`, `model.cif` and `entry.json` as a folder.

    Written beside its place and renamed into it, whole or not at all. The same simulation gives the same bytes.

    Args:
        folder: where to; its parent must be there.
        simulation: what to write.
        overwrite: whether an entry that is there, and was simulated, is replaced with all that is in it.

    Raises:
        UserError: `check_entry_folder` refuses, or the file system does; then nothing has been left behind.
    """
    folder = Path(folder)
    check_entry_folder(folder, overwrite=overwrite)
    try:
        with atomic_directory(folder) as hidden:
            _write_files(hidden, simulation)
            check_entry_folder(folder, overwrite=overwrite)
    except OSError as error:
        what = "make room or choose another folder" if is_disk_full(error) else "check the disk"
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}), nothing was left behind; {what}"
        ) from error


def _write_files(folder, simulation):
    for name in ("half_map_1", "half_map_2", "mask", "truth"):
        map_ = Map.from_array(getattr(simulation, name), simulation.voxel_size)
        write_map(folder / f"{name}.mrc", map_, label=f"crefjax simulate: {name}")
    sides = tuple(side * simulation.voxel_size for side in reversed(simulation.truth.shape))
    write_model(folder / "model.cif", simulation.atoms, sides)
    text = json.dumps(simulation.report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    (folder / _REPORT).write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name may be any bytes
