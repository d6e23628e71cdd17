"""What is imaged: the density of a particle in ice, and the ice, carbon, and contamination around particles.

Scattering length densities are those of `crefjax.simulate.density`, in 1/Å². The signal of a particle is its contrast
to the ice that it displaces: every atom other than hydrogen represents the volume of protein around it, as a Gaussian
(Fraser, MacRae & Suzuki 1978, J. Appl. Cryst. 11, 693).

Ice and carbon are amorphous: independent scatterers at random places, whose projection has the power `n t f(s)² S`,
with `n` scatterers in Å³, the thickness `t`, and the form factor `f`. Atoms do not overlap, and ice moves in the beam,
so the structure factor `S` is set below 1, the value for a gas.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crefjax.errors import UserError
from crefjax.images.formation import polar_frequencies
from crefjax.io.maps import Map
from crefjax.simulate.atoms import Atoms, form_factors, with_least_b_factor
from crefjax.simulate.density import Scatterers, density, next_fast_len, scatterers
from crefjax.simulate.noise import low_passed_noise
from crefjax.simulate.specimen import particle_body

# Å³ of a protein per atom that is not hydrogen: 0.73 cm³/g, and residues of 110 Da with 7.8 such atoms.
ATOM_VOLUME = 17.1
WATERS = 0.0311  # molecules in Å³ of vitreous ice, 0.93 g/cm³
CARBONS = 0.100  # atoms in Å³ of amorphous carbon, 2.0 g/cm³
CARBON_STRUCTURE = 0.3  # S of carbon, of which a film shows rings as strong as real ones
# Å, the thickness that leaves 1/e of the electrons that lose no energy, at 300 kV (ice: Rice et al. 2018).
ICE_PATH, CARBON_PATH = 3300.0, 2000.0
PROTEIN_CONTRAST = 0.05  # 1/Å², mean contrast of a protein, to which a map of unknown units is scaled
LEAST_MARGIN = 5.0  # Å around the atoms in their box


class ImagedSpecimen(NamedTuple):
    """A particle's contrast to ice.

    Attributes:
        density: `(z, y, x)`, float32, cubic with an even side, 1/Å², the particle's middle at voxel side / 2.
        diameter: Å, of the smallest sphere around the middle of the box that holds the particle.
        name: of the model or map.
    """

    density: np.ndarray
    diameter: float
    name: str


def water_form_factor(s: np.ndarray) -> np.ndarray:
    """Return the form factor of a water molecule, the sum of those of its atoms, in Å, at `s` in 1/Å."""
    return _form_factor(8, s) + 2 * _form_factor(1, s)


def _form_factor(element, s):
    a, b = form_factors()[element]
    return np.sum(a * np.exp(-b * np.square(np.asarray(s, np.float64))[..., None] / 4), -1)


def ice_density() -> float:
    """Return the mean scattering length density of ice, 1/Å²."""
    return float(WATERS * water_form_factor(np.zeros(())))


def specimen_of_atoms(atoms: Atoms, pixel_size: float, side: int | None = None) -> ImagedSpecimen:
    """Return the contrast of a model to the ice that it displaces.

    Args:
        atoms: the model, anywhere.
        pixel_size: Å.
        side: of the box, voxels, even; None for the smallest with factors 2, 3, and 5 that leaves 5 Å around.

    Raises:
        UserError: the box is odd or too small.
    """
    middle = atoms.center
    radius = float(np.linalg.norm(atoms.positions - middle, axis=1).max())
    least = next_fast_len(2 * (radius + LEAST_MARGIN) / pixel_size)
    side = least if side is None else side
    _check_side(side, 2 * radius / pixel_size, atoms.source)
    model = scatterers(with_least_b_factor(atoms, 0.0), pixel_size)
    # The Gaussian of a volume V falls off as exp(-pi V^(2/3) s²).
    heavy = (atoms.element > 1) * atoms.occupancy * np.float32(ATOM_VOLUME * ice_density())
    width = np.float32([4 * np.pi * ATOM_VOLUME ** (2 / 3)])
    displaced = Scatterers(model.positions, heavy[:, None].astype(np.float32), width)
    shift = side // 2 * pixel_size - middle
    box = (side,) * 3
    total = density(model, box, pixel_size, shift=shift) - density(displaced, box, pixel_size, shift=shift)
    return ImagedSpecimen(np.asarray(total), 2 * radius, atoms.source)


def specimen_of_map(map_: Map, side: int | None = None) -> ImagedSpecimen:
    """Return a map as a particle: its level outside subtracted, and scaled to the contrast of protein within.

    Args:
        map_: map of a particle with positive density, in a box of any shape; its voxels become those of the cubic box.
        side: of the box, voxels, even; None for the longest side of the map, made even.

    Raises:
        UserError: the box is odd or smaller than the map.
    """
    array = np.asarray(map_.array, np.float32)
    level = float(np.median(array))
    body, _ = particle_body(array - level, map_.voxel_size)
    longest = max(array.shape)
    side = longest + longest % 2 if side is None else side
    name = map_.path.name if map_.path else "map"
    _check_side(side, longest, name)
    scaled = (array - level) * (PROTEIN_CONTRAST / float((array - level)[body].mean()))
    box = np.zeros((side,) * 3, np.float32)
    first = [side // 2 - n // 2 for n in array.shape]  # so that the middles coincide
    box[tuple(slice(at, at + n) for at, n in zip(first, array.shape, strict=True))] = scaled
    far = np.argwhere(np.pad(body, [(at, side - at - n) for at, n in zip(first, array.shape, strict=True)])) - side // 2
    return ImagedSpecimen(box, 2 * float(np.linalg.norm(far, axis=1).max()) * map_.voxel_size, name)


def _check_side(side, least, name):
    if side % 2 or side < 16:
        raise UserError(f"the box must have an even side of at least 16 pixels, found {side}; choose another")
    if side < least:
        raise UserError(f"{name}: expected a box of at least {int(np.ceil(least))} pixels, found {side}; enlarge it")


@functools.partial(jax.jit, static_argnames=("shape", "kind"))
def amorphous_phase(
    key: jax.Array, shape: tuple[int, int], pixel_size: float, thickness: jax.Array, structure: float, kind: str
) -> jax.Array:
    """Draw the projected density of an amorphous layer, less its mean, in 1/Å.

    Args:
        key: of `jax.random`.
        shape: `(y, x)`, pixels.
        pixel_size: Å.
        thickness: `(y, x)` or a number, Å.
        structure: `S`, the power over that of independent scatterers.
        kind: `ice` or `carbon`.
    """
    number, factor = (WATERS, water_form_factor) if kind == "ice" else (CARBONS, functools.partial(_form_factor, 6))
    # The form factor as a function of frequency, on a fine table: the pixel size may be traced.
    table = np.linspace(0, 4, 801)
    values = jnp.asarray(factor(table), jnp.float32)
    radius = jnp.asarray(polar_frequencies(shape)[0]) / pixel_size
    gain = jnp.interp(radius, jnp.asarray(table, jnp.float32), values) * (radius * pixel_size < 0.5)
    white = jax.random.normal(key, shape, jnp.float32)
    field = jnp.fft.irfft2(jnp.fft.rfft2(white) * gain, s=shape) / pixel_size
    return field * jnp.sqrt(number * structure * thickness)


def uneven_thickness(
    key: jax.Array, shape: tuple[int, int], pixel_size: float, thickness: float, unevenness: float
) -> jax.Array:
    """Draw the thickness of ice in a hole: a random slope and smooth hills, Å, at least a tenth of the mean.

    Args:
        key: of `jax.random`.
        shape: `(y, x)`, pixels.
        pixel_size: Å.
        thickness: mean, Å.
        unevenness: standard deviation over the mean.
    """
    slope_key, hill_key = jax.random.split(key)
    y, x = (jnp.linspace(-1, 1, n) for n in shape)
    angle = jax.random.uniform(slope_key, (), maxval=2 * jnp.pi)
    slope = jnp.sin(angle) * y[:, None] + jnp.cos(angle) * x[None, :]
    hills = low_passed_noise(hill_key, (1, *shape), pixel_size, max(shape) * pixel_size / 3)[0]
    field = slope / jnp.std(slope) + hills / jnp.std(hills)
    return thickness * jnp.maximum(1 + unevenness * field / jnp.sqrt(2.0), 0.1)


class Structure(NamedTuple):
    """The parts of a micrograph other than particles and shot noise.

    Attributes:
        density: `(y, x)`, projected density of ice and carbon, less its mean, 1/Å.
        transmission: `(y, x)`, the electrons that pass, as a share of those in the mean ice.
        free: `(y, x)`, bool, where there is neither carbon nor contamination.
    """

    density: np.ndarray
    transmission: np.ndarray
    free: np.ndarray


def carbon_edge(random: np.random.Generator, shape: tuple[int, int], pixel_size: float) -> np.ndarray:
    """Draw the edge of a hole of 0.6 µm radius; return where there is carbon, `(y, x)`, 0 to 1, soft over 20 Å.

    The edge cuts the image between a sixth and a third of its side from one border.
    """
    radius = 6000.0 / pixel_size
    angle = random.uniform(0, 2 * np.pi)
    side = min(shape)
    depth = random.uniform(1 / 6, 1 / 3) * side
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) - n / 2 for n in shape), indexing="ij")
    # The nearest point of the hole's edge lies `side / 2 - depth` from the middle of the image.
    center = (radius - (side / 2 - depth)) * np.array([np.sin(angle), np.cos(angle)])
    distance = np.hypot(y + center[0], x + center[1]) - radius
    return (0.5 + 0.5 * np.tanh(distance * pixel_size / 20.0)).astype(np.float32)


def contamination(random: np.random.Generator, shape: tuple[int, int], pixel_size: float, count: int) -> np.ndarray:
    """Draw crystals of ice on the surface; return the share of electrons that they stop, `(y, x)`, 0 to 0.7.

    They are ellipses of 60 to 300 Å radius with edges of 15 Å, which stop 20 % to 60 % of the electrons.
    """
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) * pixel_size for n in shape), indexing="ij")
    passed = np.ones(shape, np.float32)
    for _ in range(count):
        middle = random.uniform(0, 1, 2) * np.array(shape) * pixel_size
        radius, ratio, angle = random.uniform(60, 300), random.uniform(0.5, 1), random.uniform(0, np.pi)
        along = (y - middle[0]) * np.sin(angle) + (x - middle[1]) * np.cos(angle)
        across = (y - middle[0]) * np.cos(angle) - (x - middle[1]) * np.sin(angle)
        distance = radius - np.hypot(along, across / ratio)
        passed *= 1 - random.uniform(0.2, 0.6) * (0.5 + 0.5 * np.tanh(distance / 15.0)).astype(np.float32)
    return np.minimum(1 - passed, np.float32(0.7))
