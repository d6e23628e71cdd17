"""The random choices of every sample of the stream, made on the host.

Sample `k` of a seed is a function of the two alone. Everything follows from one short row of uniform numbers, by
the formulas below, so that it does not depend on how a library samples its distributions.
"""

import math
from typing import NamedTuple

import jax
import numpy as np

from crefjax.simulate.atoms import LEAST_B
from crefjax.simulate.noise import NoiseSpectrum, power_law_spectrum, white_spectrum
from crefjax.simulate.specimen import BulkSolvent
from crefjax.simulate.stream import StreamConfig
from crefjax.simulate.stream.models import VACUUM, StreamModel
from crefjax.spectral.windows import raised_cosine

_UNIFORMS = 32  # numbers drawn for a sample
_FREQUENCIES = 96  # points at which a spectrum is sent to the device
_SHARPEST = 32.0  # B-factor over the squared voxel size: amplitudes at Nyquist grow by exp(2) at most
_MOST_SOLVENT_B = 700.0  # over the squared voxel size: Gaussians of a standard deviation of 3 voxels
_LOW_PASS_FLOOR = 0.003  # factor beyond a low-pass: exact zeros would leave shells without a phase


class Info(NamedTuple):
    """The parameters of every sample of a batch; arrays of `(batch,)` except the last two.

    Attributes:
        position: of the sample in the stream.
        model: index into the stream's `names`.
        voxel_size: Å.
        resolution: Å.
        b_factor: Å², the global blur (below 0: sharpening) on top of the atoms' own B-factors.
        spectrum: index into the stream's `spectra`.
        spectrum_parameter: B-factor of the noise in Å² or exponent of its power; 0 for the other spectra.
        unevenness: of the noise.
        belt: strength of the belt; 0 for none.
        flexible_b: Å², of the flexible part; 0 for none.
        bulk_solvent_scale: see `specimen.BulkSolvent`; 0 for none.
        bulk_solvent_b: Å², the same.
        sharpened: Å², the B-factor by which signal and noise were sharpened.
        low_pass: 1/Å, where the low-pass ends; 0 for none.
        signal: root mean square of the signal in a map of the whole model, within its mask.
        noise: standard deviation of the noise in such a map's half-maps if they reach the resolution.
        place: what is in the middle of the patch: 0 the middle of the model, 1 an atom, 2 solvent beside the model.
        center: `(batch, 3)`, Å, (x, y, z): the point of the model that lies on voxel `patch / 2`.
        rotation: `(batch, 3, 3)`: an atom at `r` lies at `rotation @ (r - center)` from that voxel, in (x, y, z).
    """

    position: np.ndarray
    model: np.ndarray
    voxel_size: np.ndarray
    resolution: np.ndarray
    b_factor: np.ndarray
    spectrum: np.ndarray
    spectrum_parameter: np.ndarray
    unevenness: np.ndarray
    belt: np.ndarray
    flexible_b: np.ndarray
    bulk_solvent_scale: np.ndarray
    bulk_solvent_b: np.ndarray
    sharpened: np.ndarray
    low_pass: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    place: np.ndarray
    center: np.ndarray
    rotation: np.ndarray


class SampleSpec(NamedTuple):
    """A sample as it goes to the device, or a batch of them.

    Attributes:
        info: see `Info`.
        atoms: `(n,)`, int32, rows of the `AtomTable`, padded with the row without weight.
        frequency: `(m,)`, 1/Å, where the spectrum is given.
        amplitude: `(m,)`, of the noise there.
        atom_power: the mean squared scattering of the model's atoms at the resolution, Å², blurred.
        body: its low-passed body, and the power of its shape.
        axis: `(3,)`, (x, y, z) in the patch's frame, of the belt.
        height: Å, of the belt's middle above the patch's center along the axis.
        plane: `(4,)`, a normal (x, y, z) in the patch's frame and a height in Å: the part beyond is flexible.
        passed: `(m,)`, factor of the low-pass on both half-maps at `frequency`.
    """

    info: Info
    atoms: np.ndarray
    frequency: np.ndarray
    amplitude: np.ndarray
    atom_power: np.ndarray
    body_level: np.ndarray
    body_mean: np.ndarray
    axis: np.ndarray
    height: np.ndarray
    plane: np.ndarray
    passed: np.ndarray


def draw_sample(
    models: list[StreamModel],
    shares: np.ndarray,
    config: StreamConfig,
    patch: int,
    reach: int,
    seed: int,
    position: int,
) -> SampleSpec:
    """Draw the sample of a seed at a position.

    Args:
        models: the models.
        shares: `(models,)`, probability of each.
        config: ranges of the parameters.
        patch: side of the patch, voxels.
        reach: side of the cube within which atoms are taken, voxels.
        seed: of the stream.
        position: of the sample.
    """
    uniforms = np.random.default_rng([seed, position]).random(_UNIFORMS).tolist()
    u = iter(uniforms[:-3])  # the last three are of the solvent, so that samples in a vacuum stay what they were
    index = min(int(np.searchsorted(np.cumsum(shares), next(u), side="right")), len(models) - 1)
    model = models[index]
    voxel_size = math.exp(_between(next(u), np.log(config.voxel_size)))
    resolution = math.exp(_between(next(u), np.log(_resolutions(config, voxel_size))))
    b_drawn = max(_between(next(u), _b_factors(config, resolution)), LEAST_B)
    frequency = np.linspace(0, 1, _FREQUENCIES) ** 2 * (math.sqrt(3) / 2 / voxel_size)
    amplitude, value, which = _draw_spectrum(next(u), next(u), b_drawn, config, frequency)
    unevenness = _between(next(u), config.unevenness)
    belt = _between(next(u), config.belt_strength) * (next(u) < config.belt)
    rotation = _rotation(next(u), next(u), next(u))
    place, center = _place(u, model, rotation, patch * voxel_size, config)
    flexible_b = _between(next(u), config.flexible_b) * (next(u) < config.flexible)
    plane = _plane(next(u), next(u), next(u), patch * voxel_size)
    solvent = _draw_solvent(uniforms[-3:], config, voxel_size)
    sharpened, low_pass, passed = _draw_filters(u, config, b_drawn, resolution, voxel_size, frequency)
    own_b = b_drawn - sharpened  # of the best-ordered atoms
    amplitude = amplitude * _sharpening(frequency, sharpened, 0.5 / voxel_size)
    if config.best_falloff:
        own_b, amplitude = _at_best_falloff(model, next(u), config, resolution, own_b, frequency, amplitude, solvent)
    blur = own_b - model.best_b
    amplitude /= amplitude.max()
    signal, noise = model.whole_map_levels(voxel_size, resolution, blur, frequency, amplitude, solvent)
    info = Info(
        np.uint32(position), np.int32(index),
        *np.array([voxel_size, resolution, blur], np.float32), np.int32(which),
        *np.array([value, unevenness, belt, flexible_b, solvent.scale, solvent.b_factor], np.float32),
        *np.array([sharpened, low_pass, signal, noise], np.float32),
        np.int32(place), center.astype(np.float32), rotation.astype(np.float32),
    )  # fmt: skip
    return SampleSpec(
        info,
        _atoms_within(model, center, rotation, reach * voxel_size / 2),
        *np.array([frequency, amplitude], np.float32),
        *np.array([model.atom_power(resolution, blur, solvent), model.body.level, model.body.mean], np.float32),
        (rotation @ model.axis).astype(np.float32),
        np.float32((model.mean - center) @ model.axis),
        *(array.astype(np.float32) for array in (plane, passed)),
    )


def _b_factors(config, resolution):
    """Return the range of B-factors at a resolution, Å²."""
    least, most = config.b_factor
    highest = min(most, max(config.falloff * resolution**2, least))
    return min(highest, max(config.least_falloff * resolution**2, least)), highest


def _draw_solvent(uniforms, config, voxel_size):
    """Draw the solvent around a sample."""
    chance, scale, b_factor = uniforms
    if chance >= config.bulk_solvent:
        return VACUUM
    b_factor = math.exp(_between(b_factor, np.log(config.bulk_solvent_b)))
    return BulkSolvent(_between(scale, config.bulk_solvent_scale), min(b_factor, _MOST_SOLVENT_B * voxel_size**2))


def _draw_filters(u, config, b_factor, resolution, voxel_size, frequency):
    """Draw a sharpening and a low-pass of the half-maps.

    Returns:
        the B-factor of the sharpening, Å², 0 for none; the end of the low-pass, 1/Å, 0 for none; and its transmission.
    """
    sharpest = min(next(u) * max(b_factor - LEAST_B, 0), _SHARPEST * voxel_size**2)
    sharpened = sharpest * (next(u) < config.sharpened)
    low_pass = _between(next(u), config.low_pass) / resolution * (next(u) < config.low_passed)
    return sharpened, low_pass, _low_pass(frequency, low_pass, _between(next(u), config.low_pass_edge))


def collate(samples: list[SampleSpec], empty: int) -> SampleSpec:
    """Stack samples to a batch, their atoms padded with the row `empty` to one of few lengths (few compilations)."""
    longest = max(len(sample.atoms) for sample in samples)
    length = max(1024, 2 ** math.ceil(math.log2(max(longest, 1))))
    padded = [
        sample._replace(atoms=np.pad(sample.atoms, (0, length - len(sample.atoms)), constant_values=empty))
        for sample in samples
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *padded)


def _between(u, bounds):
    return bounds[0] + u * (bounds[1] - bounds[0])


def _draw_spectrum(u, v, b_factor, config, frequency):
    """Return the noise's amplitude at every frequency, its parameter, and its index in the configuration's spectra."""
    which = int(u * len(config.spectra))
    kind = config.spectra[which]
    if kind == "b_factor":
        value = _between(v, config.noise_b) * b_factor
        exponent = -value * frequency**2 / 4  # at these frequencies alone: farther out it may outgrow float32
        return np.exp(exponent - exponent.max()), value, which
    value = 0.0
    if kind == "power":
        value = _between(v, config.noise_power)
        # Constant below 1 / 40 Å: noise correlated over the box would connect its opposite faces.
        kind = power_law_spectrum(value, level_below=0.025)
    elif not isinstance(kind, NoiseSpectrum):
        kind = white_spectrum()
    return np.interp(frequency, kind.frequency, kind.amplitude), value, which


def _resolutions(config, voxel_size):
    """Return the range of resolutions in Å at a voxel size."""
    limited = (float(np.clip(voxels * voxel_size, *config.resolution_limits)) for voxels in config.resolution)
    # Limits never lead out of the range in voxels, whose end is near Nyquist.
    return tuple(float(np.clip(bound, *(voxel_size * np.array(config.resolution)))) for bound in limited)


def _sharpening(frequency, b_factor, end):
    """Return the factor of a sharpening, constant beyond the frequency `end`, where the noise would dominate."""
    return np.exp(b_factor * np.minimum(frequency, end) ** 2 / 4)


def _at_best_falloff(model, u, config, resolution, own_b, frequency, amplitude, solvent):
    """Return the B-factor of a sample's best-ordered atoms and its noise, blurred to the best fall-off or near it.

    A blur below 0, which sharpens, ends at the resolution for the noise, as in `WorkingGrid`.
    """
    spread = _between(u, (-1, 1)) * config.falloff_spread * resolution**2
    more = model.best_blur(resolution, own_b - model.best_b, frequency, amplitude, solvent) + spread
    more = max(more, LEAST_B - own_b)  # no atom becomes sharper than a point
    return own_b + more, amplitude * _sharpening(frequency, -more, 1 / resolution if more < 0 else np.inf)


def _low_pass(frequency, end, edge):
    """Return the factor of a low-pass, a raised cosine that falls over the part `edge` below `end`; 1 if `end` is 0."""
    if not end:
        return np.ones_like(frequency)
    return _LOW_PASS_FLOOR + (1 - _LOW_PASS_FLOOR) * raised_cosine((frequency / end - 1 + edge) / edge)


def _plane(u, v, w, side):
    """Return a normal, uniform over the sphere, and the height in Å of a plane within the middle half of the patch."""
    z, angle = 2 * u - 1, 2 * math.pi * v
    across = math.sqrt(1 - z * z)
    return np.array([across * math.cos(angle), across * math.sin(angle), z, (w - 0.5) * side / 2])


def _rotation(u, v, w):
    """Return a rotation, uniform over SO(3), from three uniform numbers (Shoemake 1992, Graphics Gems III, 124)."""
    a, b = math.sqrt(1 - u), math.sqrt(u)
    x, y, z, s = (
        a * math.sin(2 * math.pi * v), a * math.cos(2 * math.pi * v),
        b * math.sin(2 * math.pi * w), b * math.cos(2 * math.pi * w),
    )  # fmt: skip
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * s), 2 * (x * z + y * s)],
            [2 * (x * y + z * s), 1 - 2 * (x * x + z * z), 2 * (y * z - x * s)],
            [2 * (x * z - y * s), 2 * (y * z + x * s), 1 - 2 * (x * x + y * y)],
        ]
    )


def _place(u, model, rotation, side, config):
    """Return the index of the place, and the point of the model (x, y, z) in the middle of the patch of `side` Å."""
    choice, atom, distance = next(u), next(u), next(u)
    random = np.array([next(u) for _ in range(3)]) - 0.5
    jitter = rotation.T @ (random * side / 2)  # a quarter of the side in either direction
    if choice < config.center:
        return 0, model.center + jitter
    if choice < config.center + config.solvent:
        # Straight out from the atom that lies farthest in the direction of one of the patch's sides.
        outward = rotation[int(3 * atom)]
        edge = model.positions[np.argmax(model.positions @ outward)]
        return 2, edge + outward * side * (0.35 + 0.2 * distance) + 0.5 * (jitter - outward * (jitter @ outward))
    return 1, model.positions[int(atom * len(model.positions))] + jitter


def _atoms_within(model, center, rotation, half):
    """Return the rows of the atoms in the rotated cube, selected first by the sphere around it, which is faster."""
    offsets = model.positions - center.astype(np.float32)
    near = np.flatnonzero(np.einsum("ij,ij->i", offsets, offsets) <= 3 * half**2)
    x, y, z = np.abs(rotation.astype(np.float32) @ offsets[near].T) <= half
    return (model.first + near[x & y & z]).astype(np.int32)
