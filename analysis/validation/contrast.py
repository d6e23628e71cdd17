"""Measure how much contrast maps have at low frequencies, compared with the density of their models.

    python -m analysis contrast MAP... --model MODEL... -o DIR

A particle displaces solvent, whose density is much like its own. Its contrast at low frequencies is therefore lower
than that of its atoms in a vacuum (`crefjax.simulate.specimen.BulkSolvent`). The model's density is computed where the
model stands in the map, with its own B-factors, and both are masked within 3 Å of its atoms, with a soft edge of 3 Å.
Per frequency shell, the ratio of the map's amplitudes to the model's is the factor by which the model fits the map
best, up to where the FSC of both falls below 0.5. It is reported relative to its largest value. A map that was
sharpened, blurred, or high-passed differs from its model by that, too.

DIR/contrast.csv has the ratios, DIR/contrast.json those at some resolutions, and DIR/contrast.png shows them.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from analysis.framework.model_density import model_density
from analysis.framework.study import Study
from crefjax.errors import UserError
from crefjax.io.maps import Map, read_map
from crefjax.plotting import PALETTE, resolution_axis
from crefjax.spectral.curves import first_shell_below, shell_frequencies, shell_products, solvent_level

COARSEST = 40.0  # Å, from which the ratio is reported; a model does not determine the first shells of a crop
RESOLUTIONS = (40.0, 20.0, 12.0, 8.0, 6.0, 5.0, 4.0, 3.0)  # Å, of the table
_LEAST_SHELLS = 4


def contrast(map_: Map, model) -> tuple[np.ndarray, np.ndarray]:
    """Measure the contrast of a map by its model.

    Args:
        map_: the map.
        model: path of a PDB or mmCIF file, or `Atoms`, taken where it stands in the map.

    Returns:
        frequencies of shells, `(n,)`, 1/Å, and the ratio of the map's amplitudes to the model's there, `(n,)`.

    Raises:
        UserError: `model_density` fails, or map and model agree in too few shells.
    """
    placed = model_density(model, map_)
    level = np.float32(solvent_level(map_.array, placed.mask))
    products = shell_products([(map_.array - level) * placed.mask, placed.density * placed.mask])
    frequency = shell_frequencies(map_.array.shape, map_.voxel_size)
    fsc = products[:, 0, 1] / np.sqrt(np.maximum(products[:, 0, 0] * products[:, 1, 1], 1e-300))
    first = int(np.searchsorted(frequency, 1 / COARSEST))
    end = first_shell_below(fsc[first:], 0.5)
    shells = slice(first, len(fsc) if end is None else first + end)
    if len(frequency[shells]) < _LEAST_SHELLS:
        raise UserError(
            f"expected an FSC of map and model above 0.5 in at least {_LEAST_SHELLS} shells beyond {COARSEST:g} Å, "
            f"found {len(frequency[shells])}; take a map that agrees with its model"
        )
    return frequency[shells], products[shells, 0, 1] / products[shells, 1, 1]


def _at_resolutions(frequency, ratio):
    """Return the ratio at `RESOLUTIONS`, as far as it is known."""
    known = [d for d in RESOLUTIONS if frequency[0] <= 1 / d + 1e-9 and 1 / d <= frequency[-1]]
    return {f"{d:g}": float(np.interp(1 / d, frequency, ratio)) for d in known}


def _figure(curves):
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for (name, (frequency, ratio)), color in zip(curves.items(), PALETTE * len(curves), strict=False):
        axes.plot(frequency, ratio, color=color, label=Path(name).name)
    axes.set(ylim=(0, 1.05), ylabel="amplitudes, map / model")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    resolution_axis(axes, max(frequency[-1] for frequency, _ in curves.values()))
    return figure


def _add_arguments(parser):
    parser.add_argument("maps", metavar="MAP", type=Path, nargs="+", help="maps")
    parser.add_argument("--model", metavar="MODEL", type=Path, nargs="+", required=True, help="the model of each map")


def _run(arguments, output):
    if len(arguments.maps) != len(arguments.model):
        raise UserError(
            f"--model: expected one model for each of {len(arguments.maps)} maps, found {len(arguments.model)}"
        )
    curves = {}
    for path, model in zip(arguments.maps, arguments.model, strict=True):
        frequency, ratio = contrast(read_map(path), model)
        curves[str(path)] = frequency, ratio / ratio.max()
        reported = _at_resolutions(*curves[str(path)])
        print(f"{path.name}: " + "  ".join(f"{value:.2f} at {d} Å" for d, value in reported.items()), flush=True)
    rows = ((name, *row) for name, curve in curves.items() for row in zip(*curve, strict=True))
    output.write_csv(["map", "frequency", "ratio"], rows)
    output.write_json({"maps": {name: _at_resolutions(*curve) for name, curve in curves.items()}})
    output.write_figure(_figure(curves))


STUDY = Study(__name__, _run, _add_arguments)
