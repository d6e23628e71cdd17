"""Soft masks around the particle: `mask` makes them, `threshold` finds where the density of the particle begins."""

from crefjax.masking.mask import (
    LOWPASS,
    MIN_PART,
    MaskInfo,
    MeasurementMask,
    auto_mask,
    bounding_box,
    dilate_with_soft_edge,
    make_mask,
    remove_small_components,
    taper_at_border,
)

__all__ = [
    "LOWPASS",
    "MIN_PART",
    "MaskInfo",
    "MeasurementMask",
    "auto_mask",
    "bounding_box",
    "dilate_with_soft_edge",
    "make_mask",
    "remove_small_components",
    "taper_at_border",
]
