"""The methods that `baselines.py` runs: each takes what there is of an entry and gives a full map and half-maps."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from analysis import filters
from analysis.programs import PROGRAMS
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.entries import Entry, load_mask, load_pair
from crefjax.io.maps import Map
from crefjax.masking import make_mask
from crefjax.spectral.curves import FscCurve
from crefjax.spectral.fsc import fsc_curve
from crefjax.weights.store import load_weights


class Plan(NamedTuple):
    """One output to make.

    Attributes:
        method: one of `METHODS`.
        name: of its folder in the entry's outputs.
        settings: of the method, as JSON has them.
        path: of weights or a program, or None.
    """

    method: str
    name: str
    settings: dict
    path: str | None = None


class Output(NamedTuple):
    """What a method made.

    Attributes:
        full: its full map, `(z, y, x)`.
        halves: its half-maps, or None.
        about: what there is to tell, as JSON has it.
    """

    full: np.ndarray
    halves: Sequence[np.ndarray] | None
    about: dict


class Material:
    """The half-maps of an entry and, made once they are asked for, what is known of them.

    Args:
        entry: its files.

    Raises:
        UserError: half-maps or mask cannot be used; no mask could be made.
    """

    def __init__(self, entry: Entry):
        self.entry = entry
        self.pair = load_pair(entry.half_map_1, entry.half_map_2)
        self.halves = [one.array for one in self.pair]

    @cached_property
    def full(self) -> np.ndarray:
        """The mean of the half-maps."""
        return (self.halves[0] + self.halves[1]) * np.float32(0.5)

    @cached_property
    def masked(self) -> tuple[Map, dict]:
        """The entry's mask or one that is made, and where it is from."""
        if self.entry.mask is not None:
            return load_mask(self.entry.mask, self.pair[0]), {"measured_in": self.entry.mask.name}
        array, info = make_mask(*self.halves, self.pair[0].voxel_size)
        about = {"measured_in": "mask made from the half-maps", "notes_on_mask": list(info.notes)}
        return self.pair[0].replace_array(array), about

    @property
    def mask(self) -> Map:
        """The mask alone."""
        return self.masked[0]

    @cached_property
    def curve(self) -> FscCurve:
        """The FSC of the half-maps under the mask."""
        return fsc_curve(*self.halves, self.pair[0].voxel_size, self.mask.array, leveled=True)

    @property
    def about_curve(self) -> dict:
        """What there is to tell of mask and FSC, Å."""
        return self.masked[1] | {"fsc_0.143": round(self.curve.resolution(filters.CUT).angstrom, 4)}


def _full(material, plan):
    return Output(material.full, None, {})


def _wiener(material, plan):
    halves = [filters.wiener(one, material.curve, half=True) for one in material.halves]
    return Output(filters.wiener(material.full, material.curve), halves, material.about_curve)


def _lowpass(material, plan):
    full, *halves = (filters.lowpass(one, material.curve) for one in (material.full, *material.halves))
    return Output(full, halves, material.about_curve)


def _gaussian(material, plan):
    sigma, about = plan.settings["sigma"], {}
    if sigma is None:
        sigma, about = filters.gaussian_sigma(material.curve), material.about_curve
    voxel_size = material.pair[0].voxel_size
    full, *halves = (filters.gaussian(one, voxel_size, sigma) for one in (material.full, *material.halves))
    return Output(full, halves, about | {"sigma_used": round(sigma, 4)})


def _nonlocal_means(material, plan):
    noise, noise_half = (filters.noise_of(*material.halves, half=half) for half in (False, True))
    full = filters.nonlocal_means(material.full, noise, **plan.settings)
    halves = [filters.nonlocal_means(one, noise_half, **plan.settings) for one in material.halves]
    return Output(full, halves, {"noise": noise})


def _lafter_like(material, plan):
    return Output(
        filters.lafter_like(*material.halves, material.mask.array, material.curve), None, material.about_curve
    )


def _crefjax(material, plan):
    weights, scale = _weights(plan.path), plan.settings["scale"]
    mask = material.mask if plan.settings["mask"] else None
    found = denoise_maps(DenoiseRequest(material.pair, weights, mask, scale=scale, half_maps=True))
    return Output(found.full.array, (found.half_map_1.array, found.half_map_2.array), {"notes": list(found.notes)})


@lru_cache(maxsize=1)
def _weights(path):
    return load_weights(path)


def _program(material, plan):
    made = PROGRAMS[plan.method](material.pair, material.mask.array, plan.path, plan.settings["arguments"])
    halves = None if made.halves is None else [one.array for one in made.halves]
    about = material.masked[1] | {"command": made.command, "how": made.how, "said": made.said.splitlines()}
    return Output(made.full.array, halves, about)


METHODS: dict[str, Callable[[Material, Plan], Output]] = {
    "full": _full,
    "wiener": _wiener,
    "lowpass": _lowpass,
    "gaussian": _gaussian,
    "nonlocal_means": _nonlocal_means,
    "lafter_like": _lafter_like,
    "crefjax": _crefjax,
    **dict.fromkeys(PROGRAMS, _program),
}
