"""Compare denoisers of simulated particle images and micrographs: errors, bias, found particles, and reconstructions.

    python -m analysis image_denoisers PARTICLES -o DIR --weights W --micrographs SET --empty SET --other SET

PARTICLES, and the sets of micrographs, of images without particles, and of another particle, are folders of `crefjax
images simulate`. It writes

    image_denoisers.csv          a row for each method
    image_denoisers.json         the same, curves, settings, and versions
    image_denoisers.png, .svg    an image by each method, and the curves

Of the noisy images `psnr`, `ssim`, `mse`, and `mae` compare with the clean signal, every clean image being scaled to 0
to 1 and the method's output by one factor and one level for the whole set, those of least squares: methods differ in
the scale of their output. `frc` is the mean Fourier ring correlation with the clean images. `bias`, `residual_noise`,
and `signal_kept` are by the equations of `crefjax.spectral.variances` from half-exposures that were denoised each
alone, as shares of the signal's power (bias, noise) or amplitude.

A reconstruction from denoised particles is compared with the truth (`fsc_truth`), beside that of the raw particles, and
two reconstructions from the even and the odd images with each other (`resolution_halves`, Å at 0.143) and with the
truth (`resolution_truth`, Å at 0.5): where the first is finer than the second, both halves share what is not there.
`noise_power` is the power of denoised images without particles over that of the denoised particles; the raw images' is
near 1, and a method that invents particles has a large one. `other_psnr`, `other_frc`, and `other_bias` are PSNR,
correlation, and bias of images of another particle, such as one that a network was not trained on.

Of micrographs `snr` is that of pairs of regions (`measures.region_snr`), dB, and `precision` and `recall` are those of
particles found by mean shift.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from analysis.framework.output import csv_text
from analysis.framework.study import Study
from analysis.images.methods import RAW, Context, chosen_methods
from analysis.images.reconstruct import compare_halves, reconstruct_halves
from crefjax.cli.messages import log
from crefjax.errors import UserError
from crefjax.images import measures
from crefjax.images.sets import CLEAN, EVEN, NOISY, ODD, ImageSet
from crefjax.plotting import BLACK, GRAY, PALETTE, YELLOW, resolution_axis
from crefjax.spectral.variances import variances_from

_FEWEST = 4  # images
_COLORS = [color for color in PALETTE if color != YELLOW]  # which is too near to AMBER in thin lines


def measure_particles(particles: ImageSet, methods: dict, count: int) -> dict[str, dict]:
    """Return numbers and curves of every method on a set of single particles.

    Args:
        particles: the set.
        methods: by name.
        count: images that are measured, from the first.
    """
    numbers = np.arange(min(count, particles.count))
    noisy, even, odd, clean = (particles.stack(name).read(numbers) for name in (NOISY, EVEN, ODD, CLEAN))
    context = Context(particles.pixel_size, even, odd)
    halves = replace(context, half=True)
    rows = {}
    for name, method in methods.items():
        start = time.monotonic()
        denoised = method(noisy, context)
        seconds = time.monotonic() - start
        both = method(even, halves), method(odd, halves)
        rows[name] = {
            **_errors(denoised, clean),
            **_variances(even, odd, *both),
            **compare_halves(particles, list(reconstruct_halves(particles, (noisy, denoised), numbers))[1]),
            "frc_curve": measures.ring_correlation(denoised, clean).tolist(),
            "seconds_per_image": seconds / len(noisy),
            "example": denoised[0],
        }
        rows[name]["frc"] = float(np.mean(rows[name]["frc_curve"][1:-1]))
        log(f"{name}: PSNR {rows[name]['psnr']:.2f} dB, FRC {rows[name]['frc']:.3f}")
    return rows


def _errors(denoised, clean):
    """Return the errors against clean images, each scaled to 0 to 1."""
    factor, level = measures.least_squares_scale(denoised, clean)
    found: dict[str, list[float]] = {name: [] for name in ("psnr", "ssim", "mse", "mae")}
    for image, truth in zip(factor * denoised + level, clean, strict=True):
        low, span = truth.min(), np.ptp(truth)
        pair = (image - low) / span, (truth - low) / span
        found["psnr"].append(measures.psnr(*pair, 1.0))
        found["ssim"].append(measures.ssim(*pair, 1.0))
        found["mse"].append(measures.mse(*pair))
        found["mae"].append(measures.mae(*pair))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _variances(even, odd, denoised_even, denoised_odd):
    """Return bias, residual noise, and kept signal, as curves and as means over the power of the signal."""
    covariances = measures.ring_covariances(zip(even, odd, denoised_even, denoised_odd, strict=True))
    found = variances_from(covariances, gain=None)
    weight = covariances.voxels[1:-1]
    power = weight * np.maximum(found.signal.value[1:-1], 0)
    signal = float(np.sum(power))
    numbers = {}
    for name in ("bias", "residual_noise"):
        curve = getattr(found, name).value
        numbers[name] = float(np.sum(weight * curve[1:-1])) / signal
        numbers[f"{name}_curve"] = (curve / np.where(found.signal.value > 0, found.signal.value, np.nan)).tolist()
    numbers["signal_kept"] = float(np.nansum(power * found.signal_kept.value[1:-1])) / signal
    return numbers


def measure_empty(empty: ImageSet, methods: dict, particles: ImageSet, count: int) -> dict[str, float]:
    """Return the power of denoised images without particles, over that of denoised particles, by method."""
    numbers = np.arange(min(count, empty.count, particles.count))
    even, odd, noisy = (particles.stack(name).read(numbers) for name in (EVEN, ODD, NOISY))
    nothing = empty.stack(NOISY).read(numbers)
    context = Context(particles.pixel_size, even, odd)

    def power(images):
        return float(np.mean(np.var(images, axis=(1, 2), dtype=np.float64)))

    return {name: power(method(nothing, context)) / power(method(noisy, context)) for name, method in methods.items()}


def measure_other(other: ImageSet, methods: dict, count: int) -> dict[str, dict]:
    """Return PSNR, correlation, and bias of images of another particle, by method."""
    numbers = np.arange(min(count, other.count))
    noisy, even, odd, clean = (other.stack(name).read(numbers) for name in (NOISY, EVEN, ODD, CLEAN))
    context = Context(other.pixel_size, even, odd)
    halves, rows = replace(context, half=True), {}
    for name, method in methods.items():
        denoised = method(noisy, context)
        rows[name] = {
            "other_psnr": _errors(denoised, clean)["psnr"],
            "other_frc": float(measures.ring_correlation(denoised, clean)[1:-1].mean()),
            "other_bias": _variances(even, odd, method(even, halves), method(odd, halves))["bias"],
        }
    return rows


def measure_micrographs(micrographs: ImageSet, methods: dict) -> dict[str, dict]:
    """Return the SNR of regions, and precision and recall of found particles, by method."""
    noisy, even, odd, clean = (
        micrographs.sign * micrographs.stack(name).read(slice(None)) for name in (NOISY, EVEN, ODD, CLEAN)
    )
    diameter = float(micrographs.record["diameter"]) / micrographs.pixel_size
    context, rows = Context(micrographs.pixel_size, even, odd), {}
    for name, method in methods.items():
        snr, precision, recall = [], [], []
        for number, image in enumerate(method(noisy, context)):
            places = micrographs.particles_of(number)
            regions = measures.known_regions(places, image.shape, int(diameter) // 2 * 2, clean[number])
            if regions:
                snr.append(measures.region_snr(image, regions))
            found = measures.best_found(image, places, diameter)
            precision.append(found.precision)
            recall.append(found.recall)
        snr = np.mean(snr) if snr else np.nan  # no particle has room for a region around it
        rows[name] = {"snr": snr, "precision": np.mean(precision), "recall": np.mean(recall)}
        rows[name] = {key: float(value) for key, value in rows[name].items()}
        log(f"{name}: SNR {rows[name]['snr']:.2f} dB, precision {rows[name]['precision']:.2f}")
    return rows


def figure(rows: dict[str, dict], clean: np.ndarray, pixel_size: float) -> Figure:
    """Draw an image by each method, and curves of correlation, bias, noise, and of the reconstructions."""
    page = Figure(figsize=(15, 7), layout="constrained")
    top, bottom = page.subfigures(2, 1, height_ratios=(1, 2))
    images = {"clean": clean} | {name: row["example"] for name, row in rows.items()}
    for axes, (name, image) in zip(top.subplots(1, len(images)), images.items(), strict=True):
        axes.imshow(image, cmap="gray", origin="lower")
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=9)
    panels = bottom.subplots(1, 4)
    side = max(clean.shape) * pixel_size
    for index, (name, row) in enumerate(rows.items()):
        color = GRAY if name == RAW else _COLORS[index % len(_COLORS)]
        dash = "-" if index <= len(_COLORS) else "--"  # once the colors are used up
        style = {"color": color, "linestyle": dash, "label": name, "linewidth": 1.4}
        for axes, key in zip(panels, ("frc", "bias", "residual_noise", "fsc_truth"), strict=True):
            curve = np.array(row[f"{key}_curve"], float)
            axes.plot(np.arange(1, len(curve)) / side, curve[1:], **style)
        curve = np.array(row["fsc_halves_curve"])
        panels[3].plot(np.arange(1, len(curve)) / side, curve[1:], **style | {"linestyle": ":", "label": None})
    titles = (
        "FRC with the clean images",
        "Bias over signal",
        "Residual noise over signal",
        "Reconstructions: FSC to truth,\ntwo halves (dotted)",
    )
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=10)
        axes.axhline(0, color=BLACK, linewidth=0.5)
        resolution_axis(axes, 0.5 / pixel_size)
    for axes in panels[1:3]:
        axes.set(yscale="log", ylim=(1e-3, 1e3))
    panels[0].legend(fontsize=7, frameon=False)
    return page


def _add_arguments(parser):
    parser.add_argument("particles", metavar="PARTICLES", help="set of single particles")
    parser.add_argument("--weights", nargs="*", default=[], metavar="W", help="names or folders of weights for images")
    parser.add_argument("--methods", metavar="A,B", help="classical filters to take (default: all)")
    parser.add_argument("--micrographs", metavar="SET", help="set of micrographs")
    parser.add_argument("--empty", metavar="SET", help="set of images without particles, of the same shape")
    parser.add_argument("--other", metavar="SET", help="set of another particle, of the same pixel size")
    parser.add_argument("--images", type=int, default=200, metavar="N", help="particles to take (default: %(default)s)")


def _check_kind(images, *, micrographs, empty):
    """Check that a set is of single particles or of micrographs, and with particles or without."""
    parameters = images.record["parameters"]
    if (parameters["micrographs"], parameters["empty"]) != (micrographs, empty):
        kind = "micrographs" if micrographs else "images without particles" if empty else "single particles"
        raise UserError(f"{images.path}: expected a set of {kind}, found one of another kind; choose a set of {kind}")


def _run(arguments, output):
    names = None if arguments.methods is None else [name.strip() for name in arguments.methods.split(",")]
    methods = chosen_methods(names, arguments.weights)
    start = time.monotonic()
    with ImageSet(arguments.particles) as particles:
        _check_kind(particles, micrographs=False, empty=False)
        if min(arguments.images, particles.count) < _FEWEST:
            raise UserError(f"{arguments.particles}: expected at least {_FEWEST} images; use more")
        clean, pixel_size = particles.stack(CLEAN).read([0])[0], particles.pixel_size
        rows = measure_particles(particles, methods, arguments.images)
        if arguments.empty:
            with ImageSet(arguments.empty) as empty:
                _check_kind(empty, micrographs=False, empty=True)
                for name, power in measure_empty(empty, methods, particles, arguments.images).items():
                    rows[name]["noise_power"] = power
        if arguments.other:
            with ImageSet(arguments.other) as other:
                _check_kind(other, micrographs=False, empty=False)
                for name, row in measure_other(other, methods, arguments.images).items():
                    rows[name] |= row
        record = particles.record
    if arguments.micrographs:
        with ImageSet(arguments.micrographs) as micrographs:
            _check_kind(micrographs, micrographs=True, empty=False)
            for name, row in measure_micrographs(micrographs, methods).items():
                rows[name] |= row
    page = figure(rows, clean, pixel_size)
    rows = {name: {key: value for key, value in row.items() if key != "example"} for name, row in rows.items()}
    numbers = [key for key, value in rows[RAW].items() if not isinstance(value, list)]
    output.write(
        "csv", csv_text(["method", *numbers], ([name, *(row[key] for key in numbers)] for name, row in rows.items()))
    )
    settings = {key: value for key, value in vars(arguments).items() if key not in ("output", "overwrite")}
    output.write_json(
        {"settings": {key: str(value) for key, value in settings.items()}, "set": record, "methods": _finite(rows)},
        seconds=time.monotonic() - start,
    )
    output.write_figure(page)
    print(f"wrote {Path(output.folder) / output.name}.csv, .json, .png, .svg")


def _finite(rows):
    """Return rows whose curves have None where there is no number, as JSON asks for."""

    def clean(value):
        if isinstance(value, list):
            return [clean(item) for item in value]
        return float(f"{value:.6g}") if np.isfinite(value) else None

    return {name: {key: clean(value) for key, value in row.items()} for name, row in rows.items()}


STUDY = Study(__name__, _run, _add_arguments)
