"""Compare reconstructions from more and more raw and denoised particles with the truth.

    python -m analysis image_reconstructions PARTICLES -o DIR --weights images --counts 200 1000 4000

PARTICLES is a folder of `crefjax images simulate`, whose true angles, shifts, and defoci are used. It writes

    image_reconstructions.csv          a row for each method and number of particles
    image_reconstructions.json         the same, curves, settings, and versions
    image_reconstructions.png, .svg    differences by the number of particles, and the curves of the largest

For the first so many particles the even and the odd ones are reconstructed, each alone. `fsc_truth` is the mean FSC of
both together to the truth over shells, and `cref` the mean of what the FSC of the halves makes one expect of it
(`sqrt(2 FSC / (1 + FSC))`). Noise lowers both alike. A bias that all denoised particles share lowers the first alone,
however many particles there are: what `cref` claims beyond `fsc_truth` is not in the specimen. Likewise
`resolution_halves` (Å at 0.143) against `resolution_truth` (Å at 0.5).
"""

import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from analysis.framework.study import Study
from analysis.images.methods import RAW, Context, chosen_methods
from analysis.images.reconstruct import compare_halves, reconstruct_halves
from crefjax.cli.messages import log
from crefjax.errors import UserError
from crefjax.images.sets import EVEN, NOISY, ODD, ImageSet
from crefjax.plotting import BLACK, GRAY, PALETTE, YELLOW, resolution_axis
from crefjax.spectral.fsc import c_ref

_FEWEST = 4  # particles, two in each half
_FOR_FILTERS = 500  # particles whose half-exposures tell the filters about signal and noise
_COLORS = [color for color in PALETTE if color != YELLOW]


def measure(particles: ImageSet, methods: dict, counts: list[int]) -> list[dict]:
    """Return a row for every method and number of particles, with numbers and curves.

    Args:
        particles: the set.
        methods: by name, the raw images first.
        counts: numbers of particles, from the first, rising.
    """
    numbers = np.arange(counts[-1])
    noisy = particles.stack(NOISY).read(numbers)
    even, odd = (particles.stack(name).read(numbers[:_FOR_FILTERS]) for name in (EVEN, ODD))
    context = Context(particles.pixel_size, even, odd)
    found = {name: [] for name in methods}
    for name, method in methods.items():
        if name == RAW and len(methods) > 1:
            continue  # reconstructed beside the first other method, which costs nothing
        start = time.monotonic()
        denoised = method(noisy, context)
        log(f"{name}: {len(noisy)} images denoised in {time.monotonic() - start:.0f} s")
        for count in counts:
            stacks = noisy[:count], denoised[:count]
            pairs = dict(zip((RAW, name), reconstruct_halves(particles, stacks, numbers[:count]), strict=True))
            for each, halves in pairs.items():
                if len(found[each]) < len(counts):
                    row = compare_halves(particles, halves)
                    found[each].append({"method": each, "particles": count} | row)
                    log(f"{each}, {count} particles: FSC to truth {row['fsc_truth']:.3f}, C_ref {row['cref']:.3f}")
    return [row for rows in found.values() for row in rows]


def figure(rows: list[dict], side: float, pixel_size: float) -> Figure:
    """Draw the numbers by the number of particles, and the curves of the largest.

    Args:
        rows: from `measure`.
        side: of the box, Å.
        pixel_size: Å.
    """
    page = Figure(figsize=(12, 3.8), layout="constrained")
    gains, excesses, curves = page.subplots(1, 3)
    names = list(dict.fromkeys(row["method"] for row in rows))
    raw = [row["fsc_truth"] for row in rows if row["method"] == RAW]
    for index, name in enumerate(names):
        own = [row for row in rows if row["method"] == name]
        style = {"color": GRAY if name == RAW else _COLORS[(index - 1) % len(_COLORS)], "linewidth": 1.4}
        counts, to_truth = ([row[key] for row in own] for key in ("particles", "fsc_truth"))
        dots = style | {"marker": "o", "markersize": 4, "label": name}
        gains.plot(counts, np.subtract(to_truth, raw), **dots)
        excesses.plot(counts, [row["cref"] - row["fsc_truth"] for row in own], **dots)
        truth, halves = (np.array(own[-1][key]) for key in ("fsc_truth_curve", "fsc_halves_curve"))
        frequency = np.arange(1, len(truth)) / side
        curves.plot(frequency, truth[1:], **style)
        curves.plot(frequency, np.asarray(c_ref(halves[1:])), linestyle=":", **style)
    for axes, title in ((gains, "FSC to the truth, less that of raw"), (excesses, "Expected of the halves, less true")):
        axes.set(xscale="log", xlabel="particles", ylabel="difference of mean FSC")
        axes.set_title(title, fontsize=10)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.axhline(0, color=BLACK, linewidth=0.5)
    gains.legend(fontsize=8, frameon=False)
    curves.set_title(f"{counts[-1]} particles: FSC to the truth,\nexpected of the halves (dotted)", fontsize=10)
    resolution_axis(curves, 0.5 / pixel_size)
    return page


def _add_arguments(parser):
    parser.add_argument("particles", metavar="PARTICLES", help="set of single particles")
    parser.add_argument("--weights", nargs="*", default=[], metavar="W", help="names or folders of weights for images")
    parser.add_argument("--methods", metavar="A,B", default="", help="classical filters to take (default: none)")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[200, 1000], metavar="N", help="particles (default: 200 1000)"
    )


def _run(arguments, output):
    counts = sorted(set(arguments.counts))
    methods = chosen_methods([name.strip() for name in arguments.methods.split(",") if name], arguments.weights)
    start = time.monotonic()
    with ImageSet(arguments.particles) as particles:
        parameters = particles.record["parameters"]
        if parameters["micrographs"] or parameters["empty"]:
            raise UserError(
                f"{particles.path}: expected a set of single particles, found micrographs or a set without particles; "
                "choose a set made with particles"
            )
        if counts[0] < _FEWEST or counts[-1] > particles.count:
            found = f"found {counts[0]} to {counts[-1]}"
            raise UserError(
                f"{particles.path}: expected `counts` from {_FEWEST} to the set's {particles.count}, {found}; change "
                "them, or simulate more"
            )
        rows = measure(particles, methods, counts)
        page = figure(rows, particles.shape[0] * particles.pixel_size, particles.pixel_size)
        record = particles.record
    numbers = [key for key, value in rows[0].items() if not isinstance(value, list)]
    output.write_csv(numbers, ([row[key] for key in numbers] for row in rows))
    settings = {key: str(value) for key, value in vars(arguments).items() if key not in ("output", "overwrite")}
    output.write_json({"settings": settings, "set": record, "rows": rows}, seconds=time.monotonic() - start)
    output.write_figure(page)
    print(f"wrote {Path(output.folder) / output.name}.csv, .json, .png, .svg")


STUDY = Study(__name__, _run, _add_arguments)
