"""Half-map pairs whose signal is known exactly, with a masked FSC that crosses 0.143 at a given resolution."""

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal, Self

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
    NoiseLevelSolver,
    NoiseSpectrum,
    colored_noise,
    is_near,
    modulation,
    white_spectrum,
)
from crefjax.simulate.reconstruction import memory_needed, reconstruct_signal_and_noise
from crefjax.simulate.specimen import (
    Belt,
    BulkSolvent,
    Flexible,
    belt_density,
    sample_conformations,
    specimen_density,
    truth_mask,
    with_bulk_solvent,
)
from crefjax.spectral.curves import THRESHOLD
from crefjax.spectral.fsc import fsc_curve
from crefjax.utils.atomic import atomic_directory, is_disk_full
from crefjax.utils.memory import GIB, PROGRAM_BYTES, free_memory
from crefjax.utils.progress import ProgressCallback

LEAST_MARGIN = 5.0  # Å between the outermost atom's center and the border of the box
LEAST_VOXEL = 0.5  # Å; the form factors of atoms with high B-factors cannot be distinguished at finer frequencies
LARGEST_BOX = 800  # voxels; the grid of the density, 1.5 times as fine, then still has fewer than 2^31
_REPORT = "entry.json"
_ATTEMPTS = 12  # with other noise, if a curve that scatters jumps over the requested resolution


@dataclass(frozen=True, eq=False)
class SimulationConfig:
    """The parameters of a simulated pair, except its model.

    Attributes:
        voxel_size: Å.
        resolution: Å, where the masked FSC of the half-maps crosses 0.143; ignored by the method `particles`.
        seed: random seed of poses and noise.
        box: side of the cubic box, voxels; None for the smallest even product of 2, 3 and 5 that has the margin.
        margin: Å around the model (and its belt), if the box is chosen.
        b_factor: Å², blur of the whole signal; below 0 sharpens, but no atom beyond `atoms.LEAST_B`.
        noise: spectrum of the noise (additive method).
        unevenness: unevenness of the noise over the box (additive method); see `noise.modulation`.
        belt: disordered density that is the same in both half-maps and in the truth; None for none.
        flexible: a part of the model that moves; None for none.
        bulk_solvent: the solvent that the specimen displaces; None for a specimen in a vacuum.
        method: noise added to the truth; reconstruction from simulated images; or the images themselves, see
            `crefjax.simulate.particles`.
        particles: what is imaged and how (reconstruction and particles).
        refinements: of the reconstruction; see `reconstruct_signal_and_noise`.
    """

    voxel_size: float
    resolution: float | None = None
    seed: int = 0
    box: int | None = None
    margin: float = 15.0
    b_factor: float = 60.0
    noise: NoiseSpectrum = field(default_factory=white_spectrum)
    unevenness: float = 0.0
    belt: Belt | None = None
    flexible: Flexible | None = None
    bulk_solvent: BulkSolvent | None = None
    method: Literal["additive", "reconstruction", "particles"] = "additive"
    particles: Particles = field(default_factory=Particles)
    refinements: int = 1


@dataclass(frozen=True, eq=False)
class PlacedSpecimen:
    """A specimen in the middle of its box, whose first voxel is at 0, 0, 0; arrays float32 `(z, y, x)`.

    Attributes:
        atoms: the model at the box's coordinates.
        shift: Å, (x, y, z), by which its coordinates were moved.
        truth: the density.
        mask: soft, 0 to 1.
    """

    atoms: Atoms
    shift: np.ndarray
    truth: np.ndarray
    mask: np.ndarray

    def rescaled(self, factor: float) -> Self:
        """Return the specimen with its density multiplied by a factor."""
        return replace(self, truth=self.truth * np.float32(factor))


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulated pair; all arrays float32 `(z, y, x)` of one cubic box, whose first voxel is at 0, 0, 0.

    Attributes:
        half_map_1: signal and noise.
        half_map_2: the same signal, other noise.
        mask: soft, 0 to 1, under which the FSC was set.
        truth: the signal without noise.
        voxel_size: Å.
        atoms: the model at the box's coordinates.
        report: the content of `entry.json`: every parameter, and the FSC reached.
    """

    half_map_1: np.ndarray
    half_map_2: np.ndarray
    mask: np.ndarray
    truth: np.ndarray
    voxel_size: float
    atoms: Atoms
    report: dict


def simulate_half_maps(
    atoms: Atoms, config: SimulationConfig, *, progress: ProgressCallback | None = None
) -> Simulation:
    """Simulate two half-maps of a model, with the truth and a mask.

    The model is shifted to the middle of a box whose first voxel is at 0, 0, 0. The same configuration gives the same
    arrays on CPUs of one kind; on a GPU, where sums have no fixed order, arrays agree to rounding.

    Args:
        atoms: the model.
        config: the parameters of the simulation.
        progress: called with the share of the images that is done (reconstruction method).

    Raises:
        UserError: a parameter is out of range, the resolution is beyond Nyquist, the box is too small for the model or
            too large for the memory, or no level of noise gives the resolution.
    """
    if config.method == "particles":
        raise ValueError("expected a method that gives half-maps, found 'particles'; see crefjax.simulate.particles")
    specimen = place_specimen(atoms, config)
    truth, mask = specimen.truth, specimen.mask
    key = jax.random.key(config.seed)
    noise_key = jax.random.fold_in(key, 1)
    if config.method == "reconstruction":
        halves, level = _reconstructed(noise_key, truth, mask, config, progress)
    else:
        halves, level = _additive(noise_key, truth, mask, config)
    halves = [np.asarray(half, np.float32) for half in halves]
    report = _report(specimen, halves, level, config)
    return Simulation(*halves, mask, truth, config.voxel_size, specimen.atoms, report)


def place_specimen(atoms: Atoms, config: SimulationConfig) -> PlacedSpecimen:
    """Shift a model to the middle of a box, and compute its density and a mask.

    Raises:
        UserError: a parameter is out of range, or the box is too small for the model or too large for the memory.
    """
    _check(config)
    positions = sample_conformations(atoms, config.flexible, config.seed).positions(atoms)
    middle = (positions.min(0) + positions.max(0)) / 2
    side = _choose_box(_extent(positions, middle, config), config)
    if config.method == "reconstruction":
        check_memory(side, next(iter(jnp.zeros(()).devices())))
    shift = np.round(side * config.voxel_size / 2 - middle, 3)
    atoms = translate_atoms(atoms, shift)
    conformations = sample_conformations(atoms, config.flexible, config.seed)  # the same rotations, now in the box
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    truth = _truth(key, atoms, conformations, (side,) * 3, config)
    mask = truth_mask(truth, config.voxel_size)  # before the solvent, which leaves little at low frequencies
    if config.bulk_solvent:
        truth = with_bulk_solvent(truth, config.voxel_size, config.bulk_solvent)
    return PlacedSpecimen(atoms, shift, truth, mask)


def _check(config):
    for name, value, least, most, unit in (
        ("a voxel size", config.voxel_size, LEAST_VOXEL, 100, " Å"),
        ("a seed", config.seed, 0, 2**32 - 1, ""),
        ("a B-factor", config.b_factor, -1000, 1000, " Å²"),
        ("an unevenness", config.unevenness, 0, 2, ""),
        ("a margin", config.margin, 0, 1000, " Å"),
    ):
        if not least <= value <= most:
            raise UserError(f"simulate: expected {name} of {least} to {most}{unit}, found {value:.10g}; correct it")
    if config.method not in ("additive", "reconstruction", "particles"):
        raise UserError(
            f"simulate: expected the method additive, reconstruction, or particles, found {config.method!r}"
        )
    if config.method == "particles":
        return
    if config.resolution is None:
        raise UserError("simulate: expected a `resolution` at which the half-maps' FSC crosses 0.143; give it in Å")
    nyquist = 2 * config.voxel_size
    if not (math.isfinite(config.resolution) and config.resolution > nyquist):
        raise UserError(
            f"simulate: expected a resolution above {nyquist:g} Å, twice the voxel size (Nyquist), found "
            f"{config.resolution:g} Å; choose a coarser one, or use smaller voxels"
        )


def _extent(positions, middle, config):
    """Return the extent of the atoms' centers, Å; of a sphere around them if the model is rotated to be imaged."""
    if config.method != "additive":
        return 2 * float(np.linalg.norm(positions - middle, axis=1).max())
    return float(np.ptp(positions, axis=0).max())


def _choose_box(extent, config):
    """Return the side of the box in voxels: the given one, if the model fits, or one with the margin."""
    belt = config.belt.width if config.belt else 0.0
    least = next_fast_len((extent + 2 * LEAST_MARGIN) / config.voxel_size)
    side = config.box
    if side is None:
        side = max(next_fast_len((extent + 2 * (config.margin + belt)) / config.voxel_size), least)
    elif side < (extent + 2 * LEAST_MARGIN) / config.voxel_size:
        raise UserError(
            f"simulate: expected a box of at least {least} voxels for a model of {extent:.4g} Å at "
            f"{config.voxel_size:g} Å a voxel, found {side}; use a larger box, or omit it"
        )
    if side > LARGEST_BOX:
        raise UserError(
            f"simulate: expected a box of at most {LARGEST_BOX} voxels, found {side}; use larger voxels, or a smaller "
            "box or margin"
        )
    if config.resolution is None:
        return side
    shell = side * config.voxel_size / config.resolution
    if not 3 <= shell <= side // 2 - 1:
        finest = 2 * config.voxel_size * (side / 2) / (side // 2 - 1)
        raise UserError(
            f"simulate: expected a resolution of {finest:.4g} to {side * config.voxel_size / 3:.4g} Å in a box of "
            f"{side} voxels, found {config.resolution:g} Å; ask for another"
        )
    return side


def check_memory(side: int, device: jax.Device) -> None:
    """Check that a device has enough memory to reconstruct half-maps of this side in voxels.

    Raises:
        UserError: it does not.
    """
    needed = memory_needed(side) + (PROGRAM_BYTES if device.platform == "cpu" else 0)
    if needed > (free := free_memory(device)):
        raise UserError(
            f"simulate: expected {needed / GIB:.1f} GiB of memory to reconstruct a box of {side} voxels a side, found "
            f"{free / GIB:.1f} GiB free; use larger voxels, a smaller box or margin, or the `method` additive"
        )


def _truth(key, atoms, conformations, shape, config):
    extra = config.flexible.b_factor if config.flexible else 0.0
    truth = specimen_density(
        atoms, conformations, shape, config.voxel_size, b_factor=config.b_factor, extra_b_factor=extra
    )
    if config.belt:
        truth = truth + belt_density(key, truth, atoms, config.belt, config.voxel_size)
    return truth


@functools.partial(jax.jit, static_argnums=1)
def _noise_pair(key, shape, voxel_size, spectrum, unevenness):
    keys = jax.random.split(key, 3)
    factor = modulation(keys[2], shape, unevenness)
    return [colored_noise(noise_key, shape, voxel_size, spectrum) * factor for noise_key in keys[:2]]


def _additive(key, truth, mask, config):
    """Return two half-maps, and the level of their noise for the report."""
    spectrum = NoiseSpectrum(
        config.noise.frequency, config.noise.amplitude
    )  # without its name, for which JAX would compile again
    crossings = []
    for attempt in range(_ATTEMPTS):
        noises = _noise_pair(
            jax.random.fold_in(key, attempt), truth.shape, config.voxel_size, spectrum, config.unevenness
        )
        pair = NoiseLevelSolver((truth, truth), noises, mask, config.voxel_size)
        level, crossing = pair.solve(config.resolution)
        if is_near(crossing, config.resolution):
            halves = [truth + np.float32(level) * np.asarray(noise) for noise in noises]
            return halves, {"noise_deviation": level, "noise_attempt": attempt}
        crossings.append(crossing)
    raise UserError(
        f"simulate: no level of the noise ({config.noise.name}) lets the FSC cross {THRESHOLD} at "
        f"{config.resolution:g} Å, the nearest was {_nearest(crossings, config):.3g} Å; ask for another "
        "resolution, or choose noise that falls off less towards high frequencies"
    )


def _reconstructed(key, truth, mask, config, progress):
    """Return two half-maps from simulated images, and the level of the images' noise for the report.

    Reconstruction is linear in the images, so one reconstruction of signal and noise apart serves every level.
    Noise with its sign changed, or shifted in the box, is independent noise at no cost.
    """
    options = {"refinements": config.refinements, "progress": progress}
    parts = reconstruct_signal_and_noise(truth, config.voxel_size, key, config.particles, **options)
    signals = parts.signal_1, parts.signal_2
    crossings = []
    side = truth.shape[0]
    for attempt, (turn, sign) in enumerate(itertools.product(range(_ATTEMPTS // 2), (1, -1))):
        shifts = (turn * side // 6, turn * side // 4, turn * side // 3)
        noises = [parts.noise_1, sign * jnp.roll(parts.noise_2, shifts, (0, 1, 2))]
        sigma, crossing = NoiseLevelSolver(signals, noises, mask, config.voxel_size).solve(config.resolution)
        if is_near(crossing, config.resolution):
            halves = [signal + np.float32(sigma) * noise for signal, noise in zip(signals, noises, strict=True)]
            snr = float(parts.projection_variance) / sigma**2
            return halves, {"image_noise_deviation": sigma, "image_snr": snr, "noise_attempt": attempt}
        crossings.append(crossing)
    raise UserError(
        f"simulate: no signal-to-noise ratio of the images lets the FSC cross {THRESHOLD} at "
        f"{config.resolution:g} Å, the nearest was {_nearest(crossings, config):.3g} Å; ask for another resolution, "
        "more particles or smaller errors of pose and shift"
    )


def _nearest(crossings, config):
    return min(crossings, key=lambda crossing: abs(crossing - config.resolution))


def _report(specimen, halves, level, config):
    mask = specimen.mask
    curve = fsc_curve(*halves, config.voxel_size, mask)
    return {
        "program": f"crefjax {__version__}",
        "model": specimen.atoms.source,
        "atoms": len(specimen.atoms),
        "shift": [float(value) for value in specimen.shift],
        "box": list(mask.shape),
        "parameters": describe_parameters(config),
        "level": level,
        "mask_fraction": round(float(np.mean(mask >= 0.5)), 6),
        "resolution_reached": round(curve.resolution(THRESHOLD).angstrom, 4),
        "frequency": [round(float(value), 7) for value in curve.frequency],
        "fsc": [round(float(value), 6) for value in curve.fsc],
    }


def describe_parameters(config: SimulationConfig) -> dict:
    """Return the parameters that the method uses, as JSON represents them."""
    unused = {
        "additive": ("particles", "refinements"),
        "reconstruction": ("noise", "unevenness"),
        "particles": ("noise", "unevenness", "resolution", "refinements"),
    }
    return {name: _plain(value) for name, value in vars(config).items() if name not in unused[config.method]}


def _plain(value):
    """Return a parameter as JSON represents it."""
    if isinstance(value, NoiseSpectrum):
        return value.name
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if is_dataclass(value):
        return {member.name: _plain(getattr(value, member.name)) for member in fields(value)}
    return value


def check_entry_folder(folder, *, overwrite: bool = False, inputs: Iterable[Path | str] = ()) -> None:
    """Check, before long work, that an entry can be written, as `check_output_folder` does."""
    check_output_folder(folder, "a simulated entry", _REPORT, overwrite=overwrite, inputs=tuple(inputs))


def write_entry(folder, simulation: Simulation, *, overwrite: bool = False) -> None:
    """Write `half_map_1.mrc`, `half_map_2.mrc`, `mask.mrc`, `truth.mrc`, `model.cif` and `entry.json` as a folder.

    The folder appears complete or not at all. The same simulation gives the same bytes.

    Args:
        folder: output folder; its parent must exist.
        simulation: the pair.
        overwrite: whether to replace an existing simulated entry, with everything in it.

    Raises:
        UserError: `check_entry_folder` fails, or the folder cannot be written; then nothing is left behind.
    """
    check = functools.partial(check_entry_folder, folder, overwrite=overwrite)
    maps = {name: getattr(simulation, name) for name in ("half_map_1", "half_map_2", "mask", "truth")}
    with simulated_folder(Path(folder), check) as hidden:
        write_specimen(hidden, maps, simulation.atoms, simulation.voxel_size)
        write_parameters(hidden / _REPORT, simulation.report)


@contextmanager
def simulated_folder(folder: Path, check: Callable[[], None]) -> Iterator[Path]:
    """Write a simulation into a hidden folder, which takes its name if the `with` succeeds.

    Args:
        folder: to write.
        check: raises UserError unless the folder can be written; called before and after the simulation is written.

    Raises:
        UserError: `check` raised, or the file system refused; then nothing is left behind.
    """
    check()
    try:
        with atomic_directory(folder) as hidden:
            yield hidden
            check()
    except OSError as error:
        what = "make room or choose another folder" if is_disk_full(error) else "check the disk"
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}), nothing was left behind; {what}"
        ) from error


def write_specimen(folder: Path, maps: dict[str, np.ndarray], atoms: Atoms, voxel_size: float) -> None:
    """Write maps, `(z, y, x)` by name, and the model in their box, `model.cif`, into a simulated folder."""
    for name, array in maps.items():
        write_map(folder / f"{name}.mrc", Map.from_array(array, voxel_size), label=f"crefjax simulate: {name}")
    sides = tuple(side * voxel_size for side in reversed(array.shape))
    write_model(folder / "model.cif", atoms, sides)


def write_parameters(path: Path, report: dict) -> None:
    """Write the parameters of a simulation as JSON."""
    text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name may be any bytes
