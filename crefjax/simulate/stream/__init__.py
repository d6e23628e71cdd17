"""From where to where the samples of the stream are drawn."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from crefjax.errors import UserError

if TYPE_CHECKING:
    from crefjax.simulate.noise import NoiseSpectrum

_SPECTRA = ("white", "b_factor", "power")


@dataclass(frozen=True, eq=False)
class StreamConfig:
    """From where to where samples are drawn, evenly unless said otherwise.

    Attributes:
        voxel_size: Å, evenly in its logarithm.
        resolution: where the masked FSC of the half-maps crosses 0.143, in voxels (2 is Nyquist); as the voxel size.
        resolution_limits: Å; of the range in voxels only what lies within is drawn from, or else the end nearest to it.
        b_factor: Å², of the model's best-ordered tenth of atoms; the others keep their distance to them.
        falloff: the range of B-factors ends at so many times the squared resolution in Å²: maps that reach far have
            low B-factors (12: amplitudes have fallen by `exp(-3)` at the resolution; Rosenthal & Henderson 2003).
        spectra: of the noise, with equal chances: "white", "b_factor" (`noise_b` times the signal's), "power"
            (`noise_power`), or a `NoiseSpectrum`, such as `noise.measured_spectrum` gives.
        noise_b: B-factor of the noise over that of the signal.
        noise_power: the exponent with which the noise's power falls.
        unevenness: of the noise over the patch; see `noise.modulation`.
        belt: share of the samples with a disordered belt.
        belt_strength: its mean density over the model's own.
        flexible: share of the samples of which one side of a plane is blurred, as parts of a particle that move.
        flexible_b: Å², by which it is blurred.
        sharpened: share of the samples whose signal and noise are sharpened alike, by up to the B-factor drawn.
        low_passed: share of the samples whose half-maps, not their truth, are low-passed at about the resolution.
        low_pass: where such a low-pass ends, in units of the frequency of the resolution.
        low_pass_edge: the part of that over which it falls.
        whole_map: whether `resolution` is where the FSC of a map of the whole model crosses 0.143, so that the noise is
            alike in all its patches and these are better or less well resolved; else each patch reaches it by itself.
        centre: share of the patches that lie around the middle of the model.
        solvent: share of those that only touch it; the rest lie around an atom.
    """

    voxel_size: tuple[float, float] = (0.8, 1.6)
    resolution: tuple[float, float] = (2.1, 5.0)
    resolution_limits: tuple[float, float] = (0.1, 1000.0)
    b_factor: tuple[float, float] = (20.0, 150.0)
    falloff: float = 12.0
    spectra: tuple[str | NoiseSpectrum, ...] = _SPECTRA
    noise_b: tuple[float, float] = (-0.3, 0.7)
    noise_power: tuple[float, float] = (0.0, 1.5)
    unevenness: tuple[float, float] = (0.0, 0.4)
    belt: float = 0.0
    belt_strength: tuple[float, float] = (0.3, 0.9)
    flexible: float = 0.0
    flexible_b: tuple[float, float] = (50.0, 300.0)
    sharpened: float = 0.0
    low_passed: float = 0.0
    low_pass: tuple[float, float] = (1.25, 1.6)
    low_pass_edge: tuple[float, float] = (0.2, 0.2)
    whole_map: bool = False
    centre: float = 0.2
    solvent: float = 0.1

    def check(self, patch: int) -> None:
        """Refuse what cannot be drawn or simulated.

        Raises:
            UserError: a range is empty or out of bounds, an unknown spectrum, shares beyond 1.
        """
        bounds = {
            "voxel_size": (0.1, 100), "resolution": (2, patch / 4), "b_factor": (0, 1000), "noise_b": (-2, 1),
            "noise_power": (-2, 4), "unevenness": (0, 2), "belt_strength": (0, 10), "resolution_limits": (0.1, 1000),
            "flexible_b": (0, 10000), "low_pass": (0.5, 10), "low_pass_edge": (0.01, 1),
        }  # fmt: skip
        for name, (least, most) in bounds.items():
            low, high = getattr(self, name)
            if not (least <= low <= high <= most):
                unit = " voxels (2 is Nyquist)" if name == "resolution" else ""
                raise UserError(
                    f"stream: expected {name} to run upwards within {least:g} to {most:g}{unit}, "
                    f"found {low:g} to {high:g}; correct it"
                )
        if not self.resolution[0] > 2:
            raise UserError("stream: expected resolutions above 2 voxels (Nyquist), found 2; ask for 2.1, say")
        kinds = self.belt, self.flexible, self.sharpened, self.low_passed
        shares = *kinds, self.centre, self.solvent
        if not (min(shares) >= 0 and max(kinds) <= 1 and self.centre + self.solvent <= 1 and self.falloff > 0):
            raise UserError(
                f"stream: expected shares of 0 to 1 and a falloff above 0, found {shares} and {self.falloff}; "
                "correct them"
            )
        _check_spectra(self.spectra)


def config_fields() -> dict[str, Any]:
    """Return the fields of `StreamConfig` that a training configuration has (`data.stream`), with their defaults."""
    return {field.name: field.default for field in fields(StreamConfig) if field.name != "spectra"}


def _check_spectra(spectra):
    from crefjax.simulate.noise import NoiseSpectrum  # loads JAX

    unknown = [one for one in spectra if not (isinstance(one, NoiseSpectrum) or one in _SPECTRA)]
    if unknown or not spectra:
        raise UserError(
            f"stream: expected spectra out of {', '.join(_SPECTRA)} or measured, found {unknown or 'none'}; name others"
        )
    for one in spectra:
        # Where there is no noise, no level of it makes the FSC cross.
        if isinstance(one, NoiseSpectrum) and not np.asarray(one.amplitude).min() > 0:
            raise UserError(f"stream: expected spectra above 0 at all frequencies, found {one.name!r}; correct it")
