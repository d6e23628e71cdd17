"""Half-maps with many draws of their noise, and denoisers of which is known what they do."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.maps import Map
from crefjax.simulate.atoms import Atoms
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.simulate.noise import NoiseLevelSolver, is_near
from crefjax.simulate.reconstruction import reconstruct_signal_and_noise
from crefjax.spectral.calibration import apply_calibration
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import solvent_level
from crefjax.spectral.shells import filter_shells
from crefjax.weights.store import Weights

DRAWS = 5  # pairs of half-maps of one signal: the first is measured, the others tell what is true
PLANTED_POWER = 0.3  # of the signal's, in every shell of the band
PLANTED_BAND = 0.45, 0.65  # of the shell of the resolution
_KEY = 1  # folded into the seed for poses and noise

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Known:
    """A signal and noise; arrays float32 `(z, y, x)`.

    Attributes:
        signal: what two half-maps have in common.
        pairs: of half-maps, the same signal with other noise each.
        mask: 0 to 1.
        voxel_size: Å.
        to_truth: `(shells,)`, var(signal - truth) / var(truth): what the images lose of the density.
        resolution: where the masked FSC of the first pair was made to cross 0.143, Å.
    """

    signal: np.ndarray
    pairs: list[Pair]
    mask: np.ndarray
    voxel_size: float
    to_truth: np.ndarray
    resolution: float

    def power(self, one: np.ndarray) -> np.ndarray:
        """Mean power of a map's shells under the mask, as `shell_covariances` has it."""
        return shell_covariances([one], self.mask).of(0, 0)


def known_pairs(atoms: Atoms, settings: SimulationConfig) -> Known:
    """Simulate a model by either method.

    Additive noise is drawn anew for every pair. The noise of a reconstruction is made once, in two maps: shifted,
    exchanged and with its sign turned it is other noise. Its signal is the mean of the two half-maps without noise; by
    what they differ, for other views were imaged, is noise like any other.

    Args:
        atoms: the model.
        settings: with white and even noise, and a box.

    Raises:
        UserError: as `simulate_half_maps`, or no level of the noise gives the resolution.
    """
    noiseless = {"method": "additive", "unevenness": 0.0}
    simulation = simulate_half_maps(atoms, SimulationConfig(**{**vars(settings), **noiseless}))
    truth, mask = simulation.truth, simulation.mask
    random = np.random.default_rng(settings.seed)
    if settings.method == "additive":
        level, signal = simulation.report["level"]["noise_deviation"], truth
        pairs = [tuple(signal + level * _white(random, truth.shape) for _ in range(2)) for _ in range(DRAWS)]
    else:
        _check_sphere(simulation.atoms, truth.shape[0] * settings.voxel_size)
        signal, pairs = _reconstructed(truth, mask, settings)
    found = shell_covariances([signal - truth, truth], mask)
    to_truth = found.of(0, 0) / np.maximum(found.of(1, 1), 1e-30)
    return Known(signal, pairs, mask, settings.voxel_size, to_truth, settings.resolution)


def _white(random, shape):
    return random.standard_normal(shape, np.float32)


def _check_sphere(atoms, side):
    reach = 2 * float(np.linalg.norm(atoms.positions - side / 2, axis=1).max())
    if reach > side - 10:
        raise UserError(
            f"{atoms.source}: expected a box of at least {reach + 10:.4g} Å for a model that is turned to be imaged, "
            f"found {side:.4g} Å; take a larger --box or --voxel-size"
        )


def _reconstructed(truth, mask, settings):
    key = jax.random.fold_in(jax.random.key(settings.seed), _KEY)
    parts = reconstruct_signal_and_noise(
        truth, settings.voxel_size, key, settings.particles, refinements=settings.refinements
    )
    signals, noises = (
        [np.asarray(one) for one in two] for two in ((parts.signal_1, parts.signal_2), (parts.noise_1, parts.noise_2))
    )
    level, found = NoiseLevelSolver(signals, noises, mask, settings.voxel_size).solve(settings.resolution)
    if not is_near(found, settings.resolution):
        raise UserError(
            f"no level of the noise lets the FSC cross 0.143 at {settings.resolution:g} Å, the nearest was "
            f"{found:.3g} Å; ask for another --resolution or --seed"
        )
    pairs = []
    for draw in range(DRAWS):
        first, second = noises if draw % 2 == 0 else noises[::-1]
        shift, sign = (draw * len(truth)) // DRAWS, 1 if draw < 2 else -1
        drawn = [np.roll(first, (shift,) * 3, (0, 1, 2)), sign * np.roll(second, (shift,) * 3, (2, 1, 0))]
        pairs.append(tuple(one + np.float32(level) * noise for one, noise in zip(signals, drawn, strict=True)))
    return (signals[0] + signals[1]) / 2, pairs


@dataclass(frozen=True, eq=False)
class Denoiser:
    """What makes denoised half-maps of half-maps.

    Attributes:
        name: to tell.
        run: takes and gives a pair.
        of_signal: what it makes of the signal on average over noise; None where that has to be found by trying.
        band: bool `(shells,)`, where it adds false structure.
    """

    name: str
    run: Callable[[Pair], Pair]
    of_signal: np.ndarray | None
    band: np.ndarray


def known_denoisers(known: Known, weights: dict[str, Weights], *, seed: int = 0) -> list[Denoiser]:
    """A Wiener filter, a Gaussian blur, the Wiener filter with false structure, and networks.

    Args:
        known: what they are for.
        weights: of networks, by the name to tell; they denoise as `crefjax denoise` does.
        seed: of the false structure.
    """
    shape = known.mask.shape
    shells = np.arange(max(shape) // 2 + 1)
    signal = known.power(known.signal)
    noise = np.mean([known.power(half - known.signal) for pair in known.pairs for half in pair], axis=0)
    at = max(shape) * known.voxel_size / known.resolution
    wiener, blur = signal / (signal + noise), np.exp(-((shells / (0.6 * at)) ** 2))
    band = (shells >= round(PLANTED_BAND[0] * at)) & (shells <= round(PLANTED_BAND[1] * at))
    white = _white(np.random.default_rng([seed, 1]), shape)
    false = filtered(white, np.where(band, np.sqrt(PLANTED_POWER * signal), 0))
    none = np.zeros_like(band)
    found = []
    for name, factors, added, where in (
        ("Wiener filter", wiener, 0, none),
        ("Gaussian blur", blur, 0, none),
        ("Wiener filter, false structure planted", wiener, false, band),
    ):

        def run(pair, factors=factors, added=added):
            return tuple(filtered(half, factors) + added for half in pair)

        found.append(Denoiser(name, run, filtered(known.signal, factors) + added, where))
    for name, one in weights.items():
        found.append(Denoiser(name, _network(one, known), None, none))
    return found


def _network(weights, known):
    """The network and the factors that calibration finds on the first pair.

    The factors differ a little from pair to pair. Made anew for each, they would be a part of what the network does on
    average; to what is said of one pair belongs what was done with it.
    """

    def denoised(pair, scale):
        maps = tuple(Map.from_array(half, known.voxel_size) for half in pair)
        return denoise_maps(DenoiseRequest(maps, weights, scale=scale, half_maps=True))

    first = denoised(known.pairs[0], "signal")

    def run(pair):
        raw = denoised(pair, "none")
        outputs = []
        for half, output in zip(pair, (raw.half_map_1.array, raw.half_map_2.array), strict=True):
            level = np.float32(solvent_level(half, first.region))
            output = output - np.float32(solvent_level(output, first.region))
            outputs.append(apply_calibration(output, half - level, first.calibration) + level)
        return tuple(outputs)

    return run


def filtered(one: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """A map times a factor in every shell; voxels beyond the last shell take its factor."""
    return filter_shells(one, factors, beyond=factors[-1])


def true_variances(known: Known, denoiser: Denoiser, denoised: Pair) -> dict[str, np.ndarray]:
    """What is true of the first pair, `(shells,)` each.

    Noise and residual noise are those in this pair. `E[D | S]` of a network is not known, but products of outputs whose
    noise is independent have no noise on average: with n outputs D of the other pairs, |E[D|S]|² is the mean of all
    products of two of them.

    Args:
        known: the pairs.
        denoiser: one of `known_denoisers`.
        denoised: what it made of the first pair.
    """
    if denoiser.of_signal is not None:
        middle, excess = denoiser.of_signal, 0.0
        bias, common = known.power(middle - known.signal), known.power(middle)
    else:
        outputs = [one for pair in known.pairs[1:] for one in denoiser.run(pair)]
        middle, excess = sum(outputs) / len(outputs), _noise(known, outputs) / len(outputs)
        bias, common = (_common(known, those) for those in ([one - known.signal for one in outputs], outputs))
    found = shell_covariances([known.signal, middle], known.mask)
    signal = found.of(0, 0)
    return {
        "signal": signal,
        "added": common - found.of(0, 1) ** 2 / np.maximum(signal, np.finfo(np.float64).tiny),
        "noise": np.mean([known.power(half - known.signal) for half in known.pairs[0]], axis=0),
        "bias": bias,
        "residual_noise": np.mean([known.power(one - middle) for one in denoised], axis=0) - excess,
    }


def _common(known, maps):
    """Power of what maps have in common, whatever else each has."""
    own, count = sum(known.power(one) for one in maps), len(maps)
    return (known.power(sum(maps)) - own) / (count * (count - 1))


def _noise(known, maps):
    """Power of what each map has besides."""
    return np.mean([known.power(one) for one in maps], axis=0) - _common(known, maps)
