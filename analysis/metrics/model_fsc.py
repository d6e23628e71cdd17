"""Measure FSC and correlation of a map and the atomic model of its specimen, before and after denoising.

    python -m analysis model_fsc ENTRY... -o DIR [--methods A,B] [--jobs N]
    python -m analysis model_fsc MAP... --model MODEL... -o DIR [--denoised NAME=MAP ...] [--b-factor B]

Of entries with `model.cif` or `model.pdb`, or of maps that have no half-maps, each with its model. The model is taken
where it stands (see `framework/model_density.py`) and its density computed with its own B-factors; both maps are masked
within 3 Å of its atoms, with a soft edge of 3 Å, the map relative to its mean outside. For each method's map:

    model_fsc               FSC of map and model, mean over shells 1 to N/2 - 1
    model_fsc_0.5, _0.143   Å, where it falls below; the Nyquist limit where it never does (model_falls_below_... is 0)
    cc_mask                 correlation of the voxels in the mask (above 0.5) with those of the model, low-passed for
                            all methods alike at `lowpass` Å, where the FSC of the full map falls below 0.143

As figure 4 of Agarwal et al. (2024), IUCrJ 11.
"""

import time
import weakref
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from analysis.framework.entry_study import EntryResults, EntryStudy, MethodOutput, Row, measure_entries
from analysis.framework.model_density import ModelDensity, model_density
from analysis.framework.output import FULL, Headline, box_plot, methods_of
from analysis.framework.resample import correlation, read_resampled
from crefjax.errors import UserError
from crefjax.io.entries import Entry
from crefjax.io.files import map_stem
from crefjax.io.maps import Map, read_map
from crefjax.plotting import GRAY, PALETTE, resolution_axis
from crefjax.spectral.curves import solvent_level
from crefjax.spectral.fsc import fsc_curve
from crefjax.spectral.shells import filter_shells

THRESHOLDS = (0.5, 0.143)
_HEADLINES = (
    Headline("model_fsc", "mean FSC to the model", 1, 4),
    Headline("model_fsc_0.5", "FSC-0.5 to the model (Å)", -1, 2),
    Headline("cc_mask", "correlation with the model", 1, 3),
)
_MOST_PANELS = 24


class PlacedModel(NamedTuple):
    """A model in a map, as all methods are measured with it.

    Attributes:
        model: its density and mask.
        lowpass: Å, where the FSC of the full map and the model falls below 0.143.
        smooth: `(z, y, x)`, the density low-passed there.
    """

    model: ModelDensity
    lowpass: float
    smooth: np.ndarray


_placed: weakref.WeakKeyDictionary[Map, PlacedModel] = weakref.WeakKeyDictionary()  # by an entry's half-map 1


def place_model(model, full: Map, *, b_factor: float | None = None) -> PlacedModel:
    """Compute a model's density where it stands in a full map.

    Args:
        model: path of a PDB or mmCIF file.
        full: the map before denoising.
        b_factor: Å², one for all atoms; None for the model's own.

    Raises:
        UserError: as `model_density` does.
    """
    placed = model_density(model, full, b_factor=b_factor)
    curve = _fsc(full.array, placed, full.voxel_size)
    lowpass = curve.resolution(THRESHOLDS[1]).angstrom
    factors = (curve.frequency <= 1 / lowpass + 1e-9).astype(np.float64)
    smooth = filter_shells(placed.density, factors)
    return PlacedModel(placed, lowpass, smooth)


def compare_to_model(array: np.ndarray, placed: PlacedModel, voxel_size: float) -> Row:
    """Measure one map `(z, y, x)` on the grid of the placed model; voxel size in Å."""
    model = placed.model
    curve = _fsc(array, model, voxel_size)
    numbers: dict[str, float | int | str | None] = {"model_fsc": float(curve.fsc[1:-1].mean())}
    for threshold in THRESHOLDS:
        at = curve.resolution(threshold)
        numbers |= {f"model_fsc_{threshold}": at.angstrom, f"model_falls_below_{threshold}": int(at.crossed)}
    inside = model.mask > 0.5
    numbers |= {
        "cc_mask": correlation(array[inside], placed.smooth[inside]),
        "lowpass": placed.lowpass,
        "model_mask": "around the model",
        "model_place": model.how,
        "model_agreement": model.agreement,
        "atoms": model.atoms,
        "atoms_in_box": model.inside,
        "voxel_size": voxel_size,
    }
    return Row(numbers, {"frequency": curve.frequency.tolist(), "fsc": curve.fsc.tolist()})


def _fsc(array, model, voxel_size):
    return fsc_curve(array - np.float32(solvent_level(array, model.mask)), model.density, voxel_size, model.mask)


def measure_maps(
    maps: dict[str, np.ndarray],
    like: Map,
    model,
    *,
    entry: str,
    how: dict[str, str] | None = None,
    b_factor: float | None = None,
) -> list[dict]:
    """Compare all maps of one specimen to its model, and return a row for each.

    Args:
        maps: by the method's name, `(z, y, x)` on one grid; the full map, `FULL`, is among them.
        like: a map on that grid, whose header says where it is.
        model: path of a PDB or mmCIF file.
        entry: name for the rows.
        how: each came to be on the grid, by the method's name; None for as it is.
        b_factor: Å², one for all atoms; None for the model's own.

    Raises:
        UserError: as `model_density` does.
    """
    placed = place_model(model, like.replace_array(maps[FULL]), b_factor=b_factor)
    rows = []
    for method, array in maps.items():
        row = compare_to_model(array, placed, like.voxel_size)
        about = {"entry": entry, "method": method, "how": (how or {}).get(method, "as it is")}
        rows.append(about | row.numbers | {"curves": row.curves})
    return rows


def measure(maps: MethodOutput) -> Row:
    """Return FSC and correlation of one method's map of an entry and the entry's model."""
    half_map = maps.pair[0]
    if half_map not in _placed:
        _placed[half_map] = place_model(maps.entry.model, half_map.replace_array(maps.mean))
    return compare_to_model(maps.full.array, _placed[half_map], maps.voxel_size)


def skip_reason(entry: Entry) -> str | None:
    """Return why an entry cannot be measured, or None."""
    return None if entry.model else "it has no model.cif or model.pdb"


def figure(rows: list[dict]) -> Figure:
    """Draw a panel of FSC curves for each entry, with the crossings; for three or more, boxes over all of them."""
    entries = list(dict.fromkeys(row["entry"] for row in rows))
    shown = entries[:_MOST_PANELS]
    columns = min(len(shown), 3 if len(shown) != 4 else 2)
    lines = -(-len(shown) // columns)
    boxes = int(len(entries) >= 3)
    page = Figure(figsize=(5.6 * columns, 4.2 * (lines + boxes)), layout="constrained")
    grid = page.add_gridspec(lines + boxes, 6)
    for number, entry in enumerate(shown):
        width = 6 // columns
        column = width * (number % columns)
        axes = page.add_subplot(grid[number // columns, column : column + width])
        _panel(axes, [row for row in rows if row["entry"] == entry], methods_of(rows))
    for place, headline in enumerate(_HEADLINES if boxes else ()):
        box_plot(page.add_subplot(grid[lines, 2 * place : 2 * place + 2]), rows, headline)
    if len(shown) < len(entries):
        page.suptitle(f"The first {len(shown)} of {len(entries)} entries")
    return page


def _panel(axes, rows, methods):
    for threshold in THRESHOLDS:
        axes.axhline(threshold, color=GRAY, linewidth=0.8, linestyle=":")
    axes.axhline(0, color=GRAY, linewidth=0.8)
    lowest = -0.1
    for row in rows:
        x, fsc = (np.array(row["curves"][name])[1:-1] for name in ("frequency", "fsc"))
        is_full = row["method"] == FULL
        color = GRAY if is_full else PALETTE[methods.index(row["method"]) % len(PALETTE)]
        crossings = ", ".join(
            f"{row[f'model_fsc_{t}']:.2f}" if row[f"model_falls_below_{t}"] else "Nyquist" for t in THRESHOLDS
        )
        label = f"{row['method']}: {crossings}; {row['model_fsc']:.3f}"
        axes.plot(x, fsc, color=color, linestyle="--" if is_full else "-", linewidth=1.4, label=label)
        lowest = min(lowest, 1.1 * float(fsc.min()))
    resolution_axis(axes, row["curves"]["frequency"][-1])
    axes.set(title=row["entry"], ylabel="FSC of map and model, masked", ylim=(lowest, 1.05))
    axes.legend(fontsize=7, frameon=False, title="Å at 0.5, at 0.143; mean", title_fontsize=7, loc="upper right")


def _add_arguments(parser):
    parser.add_argument("--model", nargs="+", metavar="MODEL", help="then maps are given, not entries: one for each")
    parser.add_argument(
        "--denoised",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=MAP",
        help="with --model: a denoised map; with several maps, one of the same NAME for each, in their order",
    )
    parser.add_argument("--b-factor", type=float, metavar="B", help="with --model: Å², for all atoms")


def _run(arguments, output):
    if arguments.model is None and (arguments.denoised or arguments.b_factor is not None):
        raise UserError(
            "--denoised, --b-factor: expected maps and --model, found entries; give --model or leave them out"
        )
    if arguments.model is not None and arguments.methods is not None:
        raise UserError("--methods: expected entries, found maps with --model; leave it out")
    results = measure_entries([STUDY], arguments) if arguments.model is None else _measure_files(arguments)
    settings = {key: value for key, value in vars(arguments).items() if key not in ("output", "overwrite")}
    STUDY.report(results, output, settings)


def _measure_files(arguments):
    start, rows = time.monotonic(), []
    paths = [Path(path) for path in arguments.entries]
    if len(arguments.model) != len(paths):
        raise UserError(f"--model: expected one for each of {len(paths)} maps, found {len(arguments.model)}; give all")
    names = [map_stem(path.name) or path.name for path in paths]
    if len(set(names)) < len(names):
        raise UserError(f"expected maps of different names, found {', '.join(names)}; rename one")
    denoised = _denoised(arguments.denoised, len(paths))
    for number, (path, model, name) in enumerate(zip(paths, arguments.model, names, strict=True)):
        like = read_map(path)
        maps, how = {FULL: like.array}, {}
        for method, files in denoised.items():
            resampled = read_resampled(files[number], like)
            maps[method], how[method] = resampled.map.array, resampled.how
        rows += measure_maps(maps, like, model, entry=name, how=how, b_factor=arguments.b_factor)
        print(_lines(rows[-len(maps) :]), flush=True)
    return EntryResults({STUDY.name: rows}, [], time.monotonic() - start)


def _denoised(options, count):
    """Return paths by the method's name, one for each map."""
    denoised: dict[str, list[Path]] = {}
    for option in options:
        name, equals, path = option.partition("=")
        if not (equals and name and path) or name == FULL:
            raise UserError(f"--denoised: expected NAME=MAP, found {option!r}; name the method and its map")
        denoised.setdefault(name, []).append(Path(path))
    for name, paths in denoised.items():
        if len(paths) != count:
            raise UserError(f"--denoised: expected {name} once for each of {count} maps, found {len(paths)}; give all")
    return denoised


def _lines(rows):
    lines = [f"{rows[0]['entry']}: model {rows[0]['model_place']}; correlation {rows[0]['model_agreement']:.2f} there"]
    for row in rows:
        at = [f"{row[f'model_fsc_{t}']:.2f} Å" if row[f"model_falls_below_{t}"] else "none" for t in THRESHOLDS]
        lines.append(
            f"  {row['method']:16} mean FSC {row['model_fsc']:.4f}  0.5 at {at[0]}  0.143 at {at[1]}  "
            f"correlation {row['cc_mask']:.3f}"
        )
    return "\n".join(lines)


STUDY = EntryStudy(__name__, measure, _HEADLINES, figure, skip_reason, add_arguments=_add_arguments, run=_run)
