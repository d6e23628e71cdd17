"""The contrast transfer function of an electron microscope, and how a data set's defocus is spread."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crefjax.errors import UserError


class CtfParameters(NamedTuple):
    """The optics of a data set. Every particle has its own defocus, drawn evenly between the two bounds.

    Attributes:
        defocus_min: Å, positive for underfocus.
        defocus_max: Å.
        amplitude_contrast: the fraction, 0 to below 1.
        spherical_aberration: mm.
        voltage: kV.
    """

    defocus_min: float = 8000.0
    defocus_max: float = 20000.0
    amplitude_contrast: float = 0.1
    spherical_aberration: float = 2.7
    voltage: float = 300.0

    def check(self) -> None:
        """Refuse what no microscope has.

        Raises:
            UserError: if a value is not finite or out of its range.
        """
        if not np.all(np.isfinite(self)):
            raise UserError(f"CTF parameters must be finite numbers, found {tuple(self)}")
        if self.voltage <= 0:
            raise UserError(f"the voltage must be above 0 kV, found {self.voltage}; give 300, say")
        if self.spherical_aberration < 0:
            raise UserError(f"the spherical aberration must not be below 0 mm, found {self.spherical_aberration}")
        if not 0 <= self.amplitude_contrast < 1:
            raise UserError(f"the amplitude contrast must lie in 0 to below 1, found {self.amplitude_contrast}")
        if self.defocus_min > self.defocus_max:
            raise UserError(f"the defocus range must run upwards, found {self.defocus_min} to {self.defocus_max} Å")


def electron_wavelength(voltage: float | jax.Array) -> jax.Array:
    """The wavelength in Å of electrons accelerated by `voltage` kV, relativistic.

    `h / sqrt(2 m e V (1 + e V / (2 m c²)))`; de Broglie 1924, with the constants of CODATA 2018.
    """
    volt = 1e3 * jnp.asarray(voltage, jnp.float32)
    return 12.2642597 / jnp.sqrt(volt * (1 + 0.978475591e-6 * volt))


def contrast_transfer(frequency: jax.Array, defocus: jax.Array, optics: CtfParameters) -> jax.Array:
    """The contrast transfer function, without astigmatism and without an envelope.

    `sin(pi λ g² (Δf - λ² g² Cs / 2) + asin(A))` at frequency `g`; Rohou & Grigorieff 2015, equations 2 to 5, with
    the sign turned as it is for images whose contrast was inverted so that protein is bright: it is `A` at
    `g = 0` and positive up to the first zero.

    Args:
        frequency: 1/Å, any shape.
        defocus: Å, positive for underfocus; the shape of the frequency or one that broadcasts with it.
        optics: whose defocus bounds are not looked at.

    Returns:
        Values from -1 to 1.
    """
    wavelength = electron_wavelength(optics.voltage)
    aberration = 1e7 * jnp.asarray(optics.spherical_aberration, jnp.float32)  # mm to Å
    squared = jnp.square(frequency)
    path = defocus - 0.5 * jnp.square(wavelength) * squared * aberration
    return jnp.sin(jnp.pi * wavelength * squared * path + jnp.arcsin(optics.amplitude_contrast))
