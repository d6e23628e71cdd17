"""Losses by name, and their sum."""

import math
import numbers
from collections.abc import Mapping
from types import MappingProxyType

from jax import Array

from crefjax.errors import UserError
from crefjax.losses.common import LossAndAux
from crefjax.losses.of_half_maps import bias, cref_l1, cref_l1_masked, fsc_loss, gain_l1, n2n_l1, n2n_l2
from crefjax.losses.of_truth import truth_fsc, truth_fsc_masked, truth_l2
from crefjax.spectral.shells import Shells

_OF_FULL = ("denoised", "half_map_1", "half_map_2")
_OF_HALVES = ("denoised_1", "denoised_2", "half_map_1", "half_map_2")
_OF_TRUTH = ("denoised", "truth")
_OF_MASKED = (*_OF_FULL, "mask")
_OF_MASKED_TRUTH = (*_OF_TRUTH, "mask")
_NEEDS = {
    _OF_FULL: ("full",), _OF_HALVES: ("halves",), _OF_TRUTH: ("full", "truth"), _OF_MASKED: ("full", "mask"),
    _OF_MASKED_TRUTH: ("full", "truth", "mask"),
}  # fmt: skip
_CALLS = {
    "cref_l1": (cref_l1, _OF_FULL),
    "fsc": (fsc_loss, _OF_HALVES),
    "n2n_l2": (n2n_l2, _OF_HALVES),
    "n2n_l1": (n2n_l1, _OF_HALVES),
    "truth_fsc": (truth_fsc, _OF_TRUTH),
    "truth_l2": (truth_l2, _OF_TRUTH),
    "bias": (bias, _OF_HALVES),
    "cref_l1_masked": (cref_l1_masked, _OF_MASKED),
    "gain_l1": (gain_l1, _OF_FULL),
    "truth_fsc_masked": (truth_fsc_masked, _OF_MASKED_TRUTH),
}

LOSSES: Mapping[str, tuple[str, ...]] = MappingProxyType({name: _NEEDS[of] for name, (_, of) in _CALLS.items()})
"""The losses by name, and what each needs besides half-maps: `full`, the denoised full map; `halves`, the denoised
half-maps; `truth`, the noise-free map; `mask`, a mask."""


def needs(weights: Mapping[str, float]) -> frozenset[str]:
    """What the losses of positive weight need, a subset of `full`, `halves`, `truth` and `mask` (see `LOSSES`).

    Raises:
        UserError: as `weighted`.
    """
    return frozenset(need for name in _positive(weights) for need in LOSSES[name])


def weighted(
    weights: Mapping[str, float],
    *,
    half_map_1: Array,
    half_map_2: Array,
    denoised: Array | None = None,
    denoised_1: Array | None = None,
    denoised_2: Array | None = None,
    truth: Array | None = None,
    mask: Array | None = None,
    shells: Shells | None = None,
) -> LossAndAux:
    """The sum of losses times their weights.

    Args:
        weights: factors by names of `LOSSES`, Python numbers; a loss of weight 0 is not computed.
        half_map_1: always.
        half_map_2: always.
        denoised: for losses that need `full`.
        denoised_1: for losses that need `halves`.
        denoised_2: for losses that need `halves`.
        truth: for losses that need `truth`.
        mask: for losses that need `mask`.
        shells: of the box.

    Returns:
        the sum, one value a sample, and aux with every loss computed, by name, without its weight.

    Raises:
        UserError: a name that is not in `LOSSES`, a weight that is no number of 0 or more, or none above 0.
        ValueError: a map that a loss needs is None; maps of different shapes; shells of another box.
    """
    maps = {
        "half_map_1": half_map_1,
        "half_map_2": half_map_2,
        "denoised": denoised,
        "denoised_1": denoised_1,
        "denoised_2": denoised_2,
        "truth": truth,
        "mask": mask,
    }
    factors = _positive(weights)
    aux = {}
    for name in factors:
        function, arguments = _CALLS[name]
        if missing := [one for one in arguments if maps[one] is None]:
            raise ValueError(f"the loss {name} needs {' and '.join(missing)}, found None")
        aux[name], _ = function(*(maps[one] for one in arguments), shells=shells)
    return sum(factor * aux[name] for name, factor in factors.items()), aux


def _positive(weights):
    """Names and factors of the losses to compute, in the order of `LOSSES`."""
    names = ", ".join(LOSSES)
    for name, weight in weights.items():
        if name not in LOSSES:
            raise UserError(f"losses.{name}: expected one of {names}, found {name}; correct the name or remove it")
        if not isinstance(weight, numbers.Real) or not 0 <= weight < math.inf:
            raise UserError(f"losses.{name}: expected a number of 0 or more, found {weight!r}; 0 leaves it out")
    found = {name: float(weights[name]) for name in LOSSES if name in weights and weights[name] > 0}
    if not found:
        raise UserError(f"losses.NAME: expected a weight above 0, found none; give one of {names} a weight, 1 say")
    return found
