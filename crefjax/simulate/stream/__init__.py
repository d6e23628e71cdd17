"""An endless stream of simulated training patches: its configuration.

`batches.py` has the iterator, `draw.py` what the host draws, and `render.py` what the device computes. This module does
not load JAX.
"""

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
    """The ranges that samples are drawn from, uniformly unless stated otherwise.

    Attributes:
        voxel_size: Å, uniform in its logarithm.
        resolution: where the masked FSC of the half-maps crosses 0.143, in voxels (2 is Nyquist); uniform in its
            logarithm.
        resolution_limits: Å, to which the range in voxels is clipped.
        b_factor: Å², of the model's best-ordered tenth of atoms; the others keep their difference to it.
        falloff: largest B-factor over the squared resolution in Å²: maps of high resolution have
            low B-factors (12: amplitudes have fallen by `exp(-3)` at the resolution; Rosenthal & Henderson 2003).
        least_falloff: smallest B-factor over the squared resolution.
        best_falloff: whether half-maps and truth are then brought to the fall-off that `crefjax denoise` gives to the
            maps of its networks (`b_factors.best_blur`).
        falloff_spread: largest difference from it, over the squared resolution in Å².
        spectra: of the noise, with equal probabilities: "white", "b_factor" (`noise_b` times the signal's), "power"
            (`noise_power`), or a `NoiseSpectrum`, such as `noise.measured_spectrum` gives.
        noise_b: B-factor of the noise over that of the signal.
        noise_power: the exponent with which the noise's power falls.
        unevenness: of the noise over the patch; see `noise.modulation`.
        belt: share of the samples with a disordered belt.
        belt_strength: its mean density over the model's own.
        flexible: share of the samples that are blurred on one side of a plane, like a part of a particle that moves.
        flexible_b: Å², of that blur.
        bulk_solvent: share of the samples whose contrast is lowered by the solvent that the particle displaces, see
            `specimen.BulkSolvent`; the others are in a vacuum.
        bulk_solvent_scale: its mean density over that of the particle.
        bulk_solvent_b: Å², of its border; uniform in its logarithm. It is at most 700 times the squared voxel size, so
            that a patch does not depend on density far beyond it.
        sharpened: share of the samples whose signal and noise are sharpened alike, by up to the B-factor drawn.
        low_passed: share of the samples whose half-maps, but not their truth, are low-passed at about the resolution.
        low_pass: end of that low-pass, in units of the frequency of the resolution.
        low_pass_edge: the part of that over which it falls.
        whole_map: whether `resolution` is that of a map of the whole model, so that the noise is alike in all its
            patches, some of which are resolved better than others; else each patch by itself has that resolution.
        center: share of the patches around the middle of the model.
        solvent: share of the patches that only touch the model; the others are around an atom.
    """

    voxel_size: tuple[float, float] = (0.8, 1.6)
    resolution: tuple[float, float] = (2.1, 5.0)
    resolution_limits: tuple[float, float] = (0.1, 1000.0)
    b_factor: tuple[float, float] = (20.0, 150.0)
    falloff: float = 12.0
    least_falloff: float = 0.0
    best_falloff: bool = False
    falloff_spread: float = 0.0
    spectra: tuple[str | NoiseSpectrum, ...] = _SPECTRA
    noise_b: tuple[float, float] = (-0.3, 0.7)
    noise_power: tuple[float, float] = (0.0, 1.5)
    unevenness: tuple[float, float] = (0.0, 0.4)
    belt: float = 0.0
    belt_strength: tuple[float, float] = (0.3, 0.9)
    flexible: float = 0.0
    flexible_b: tuple[float, float] = (50.0, 300.0)
    bulk_solvent: float = 0.0
    bulk_solvent_scale: tuple[float, float] = (0.3, 0.85)
    bulk_solvent_b: tuple[float, float] = (40.0, 400.0)
    sharpened: float = 0.0
    low_passed: float = 0.0
    low_pass: tuple[float, float] = (1.25, 1.6)
    low_pass_edge: tuple[float, float] = (0.2, 0.2)
    whole_map: bool = False
    center: float = 0.2
    solvent: float = 0.1

    def check(self, patch: int) -> None:
        """Check that all samples can be drawn and simulated with patches of a side in voxels.

        Raises:
            UserError: a range is empty or out of bounds, a spectrum is unknown, or shares exceed 1.
        """
        bounds = {
            "voxel_size": (0.1, 100), "resolution": (2, patch / 4), "b_factor": (0, 1000), "noise_b": (-2, 1),
            "noise_power": (-2, 4), "unevenness": (0, 2), "belt_strength": (0, 10), "resolution_limits": (0.1, 1000),
            "flexible_b": (0, 10000), "bulk_solvent_scale": (0, 0.99), "bulk_solvent_b": (1, 10000),
            "low_pass": (0.5, 10), "low_pass_edge": (0.01, 1),
        }  # fmt: skip
        for name, (least, most) in bounds.items():
            low, high = getattr(self, name)
            if not (least <= low <= high <= most):
                unit = " voxels (2 is Nyquist)" if name == "resolution" else ""
                raise UserError(
                    f"stream: expected {name} to be two numbers within {least:g} to {most:g}{unit}, the smaller first, "
                    f"found {low:g} to {high:g}; correct it"
                )
        if not self.resolution[0] > 2:
            raise UserError("stream: expected resolutions above 2 voxels (Nyquist), found 2; take 2.1, for example")
        for name in ("belt", "flexible", "bulk_solvent", "sharpened", "low_passed", "center", "solvent"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"stream: expected {name} to be a share of 0 to 1, found {getattr(self, name)}; correct it"
                )
        if self.center + self.solvent > 1:
            raise UserError(
                f"stream: expected the shares center and solvent to add up to at most 1, found {self.center} and "
                f"{self.solvent}; lower one"
            )
        if not self.falloff > 0:
            raise UserError(f"stream: expected a falloff above 0, found {self.falloff}; correct it")
        if not 0 <= self.least_falloff <= self.falloff:
            raise UserError(
                f"stream: expected a least_falloff of 0 to falloff = {self.falloff:g}, found {self.least_falloff}; "
                "correct it"
            )
        if not 0 <= self.falloff_spread <= 10:
            raise UserError(f"stream: expected a falloff_spread of 0 to 10, found {self.falloff_spread:g}; correct it")
        _check_spectra(self.spectra)


def config_fields() -> dict[str, Any]:
    """Return the fields of `StreamConfig` that a training configuration has (`data.stream`), with their defaults."""
    return {field.name: field.default for field in fields(StreamConfig) if field.name != "spectra"}


def _check_spectra(spectra):
    from crefjax.simulate.noise import NoiseSpectrum  # loads JAX

    unknown = [kind for kind in spectra if not (isinstance(kind, NoiseSpectrum) or kind in _SPECTRA)]
    if unknown or not spectra:
        raise UserError(
            f"stream: expected noise spectra among {', '.join(_SPECTRA)}, or measured ones, found {unknown or 'none'}; "
            "name others"
        )
    for kind in spectra:
        # Without noise at a frequency, no level of it makes the FSC cross there.
        if isinstance(kind, NoiseSpectrum) and not np.asarray(kind.amplitude).min() > 0:
            raise UserError(
                f"stream: expected a noise spectrum above 0 at every frequency, found {kind.name!r}; take another"
            )
