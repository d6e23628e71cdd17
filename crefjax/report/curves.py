"""The figures of a report: correlations, power, ratios; every frequency axis in Å."""

from typing import NamedTuple

import numpy as np

from crefjax.report.lines import Line, array, correlation_axes, estimate, legend, line_axes, log_axes, note, shown
from crefjax.report.plots import BLUE, GREEN, GREY, ORANGE, figure_bytes

# More of Okabe & Ito's palette.
SKY, PINK, BLACK = "#56B4E9", "#CC79A7", "#000000"


# What an account may tell: its name there; label, colour and style of the curve.
_PARTS = {
    "signal": ("signal", BLUE, "-"),
    "noise": ("noise", ORANGE, "--"),
    "bias": ("bias", GREEN, "-."),
    "added": ("added structure", SKY, (0, (3, 1, 1, 1, 1, 1))),
    "residual_noise": ("residual noise", PINK, (0, (1, 1))),
}
_RATIOS = {
    "signal_to_noise_before": ("signal / noise before", ORANGE, "--"),
    "signal_to_noise_after": ("signal / noise after", BLUE, "-"),
    "signal_to_bias": ("signal / bias", GREEN, "-."),
    "signal_to_added": ("signal / added structure", SKY, (0, (3, 1, 1, 1, 1, 1))),
}


class Drawn(NamedTuple):
    """A figure that was drawn.

    Attributes:
        name: of its files, without suffix.
        title: a few words.
        caption: how to read it, in sentences.
        alt: what is in it, for who cannot see it.
        png: a file's bytes.
        svg: a file's bytes.
    """

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: bytes


def draw_figures(numbers: dict) -> list[Drawn]:
    """All figures for which there are numbers.

    Args:
        numbers: what `crefjax.report.account.account` returns.

    Returns:
        two figures of correlations and one of power; two more where denoised half-maps were given.
    """
    drawn = [_fsc(numbers), _fit(numbers), _power(numbers)]
    if numbers["ratios"] is not None:
        drawn += [_ratios(numbers), _kept(numbers)]
    return drawn


def _fsc(numbers):
    curves = numbers["curves"]
    lines = [
        Line("half-maps, masked", BLUE, "-", array(curves["fsc_halves"])),
        Line("half-maps, no mask", SKY, "-.", array(curves["fsc_halves_unmasked"])),
        Line(r"$C_{ref}$: full map to the truth, expected", ORANGE, "--", array(curves["cref"])),
    ]
    figure, axes = correlation_axes(numbers, lines)
    found = []
    for name, resolution in numbers["resolution"].items():
        threshold = float(name.removeprefix("fsc_"))
        words = (
            f"{resolution['angstrom']:.2f} Å at {threshold:g}"
            if resolution["crossed"]
            else f"never below {threshold:g}"
        )
        found.append(words)
        axes.axhline(threshold, color=GREY, linewidth=0.8, linestyle=":")
        note(axes, words, threshold)
        if resolution["crossed"]:
            axes.plot(1 / resolution["angstrom"], threshold, "o", color=BLUE, markersize=6, markeredgecolor="white")
    legend(axes, lines, columns=2)
    return _drawn(
        figure,
        "fsc",
        "Resolution of the half-maps",
        "Fourier shell correlation of the two noisy half-maps: where it falls below 0.143 is the resolution of this "
        "data, and denoising does not change it. C_ref, computed from the masked curve, is how well the full map "
        "should correlate with the map without noise.",
        f"The masked FSC of the half-maps: {', '.join(found)}.",
    )


def _fit(numbers):
    curves = numbers["curves"]
    lines = [
        Line(r"$C_{ref}$", ORANGE, "--", array(curves["cref"])),
        Line("denoised map to full map, masked", BLUE, "-", array(curves["fsc_denoised_full"])),
        Line("no mask", SKY, "-.", array(curves["fsc_denoised_full_unmasked"])),
    ]
    figure, axes = correlation_axes(numbers, lines)
    legend(axes, lines, columns=3)
    return _drawn(
        figure,
        "fit_to_cref",
        "How much was removed",
        "If the denoised map were the truth, its correlation with the noisy full map would lie on C_ref. Above it, "
        "noise was left in; below it, signal was taken out or something was put in.",
        f"FSC of denoised map and full map beside C_ref; root mean square difference of their squares "
        f"{_plain(numbers['cref_rmse'])}.",
    )


def _power(numbers):
    curves, parts = numbers["curves"], numbers["variances"] or {}
    lines = [
        Line("full map", GREY, "-", array(curves["power_full"])),
        Line("denoised map", BLACK, (0, (5, 2)), array(curves["power_denoised"])),
        *(estimate(parts[name], *look) for name, look in _PARTS.items() if name in parts),
    ]
    figure, axes = log_axes(numbers, lines, "power per Fourier voxel (map's units²)")
    legend(axes, lines, columns=3)
    more = (
        " Signal and noise are those of a noisy half-map, residual noise is what noise is left in a denoised one, and "
        "bias is what denoising changed of the signal: damped or made up. Bands: one standard error."
        if parts
        else ""
    )
    return _drawn(
        figure,
        "power",
        "Power, shell by shell",
        f"Mean squared amplitude in every shell, within the mask, on a logarithmic axis.{more}",
        f"Power over resolution of {', '.join(line.label for line in lines)}.",
    )


def _ratios(numbers):
    ratios = numbers["ratios"]
    lines = [estimate(ratios[name], *look) for name, look in _RATIOS.items() if name in ratios]
    figure, axes = log_axes(numbers, lines, "ratio of powers")
    axes.axhline(1, color=BLACK, linewidth=1)
    legend(axes, lines, columns=2)
    return _drawn(
        figure,
        "ratios",
        "Signal against noise and against bias",
        "Above 1, the black line, there is more signal than noise, or than bias. A denoised map whose signal / noise "
        "is high and whose signal / bias is low looks clean and is wrong: there, do not believe what you see. Added "
        "structure is what both denoised half-maps show and the signal of the noisy ones does not explain.",
        "Ratios of the signal's power to that of noise, before and after, and to that of bias, over resolution.",
    )


def _kept(numbers):
    lines = [
        estimate(numbers["signal_kept"], "signal kept", BLUE, "-"),
        estimate(numbers["noise_kept"], "noise kept", ORANGE, "--"),
    ]
    figure, axes = line_axes(numbers, lines, "share of amplitude kept")
    highest = np.nanmax([1.0, *(np.nanmax(shown(line), initial=0) for line in lines)])
    lowest = np.nanmin([0.0, *(np.nanmin(shown(line), initial=0) for line in lines)])
    axes.set_ylim(max(1.1 * lowest, -1) - 0.05, min(1.1 * highest, 2) + 0.02)
    axes.axhline(1, color=BLACK, linewidth=1)
    legend(axes, lines, columns=3)
    return _drawn(
        figure,
        "kept",
        "What denoising kept",
        "Share of the amplitude that is left: 1 is all of it. Signal below 1 is damped: detail at that resolution "
        "looks weaker than it is. Where both curves fall together, the map was smoothed more than it was denoised.",
        "Shares of the signal's and of the noise's amplitude that denoising kept, over resolution.",
    )


def _drawn(figure, name, title, caption, alt):
    return Drawn(name, title, caption, alt, figure_bytes(figure, "png"), figure_bytes(figure, "svg"))


def _plain(number):
    return "unknown" if number is None else f"{number:.3g}"
