"""How far a map and the atomic model of its specimen agree, before and after denoising: FSC and correlation.

    python -m analysis.map_model ENTRY... -o DIR [--methods A,B] [--jobs N]
    python -m analysis.map_model MAP... --model MODEL... -o DIR [--denoised NAME=MAP ...] [--b-factor B]

Of entries with `model.cif` or `model.pdb`, or of maps that have no half-maps, each with its model. The model is taken
where it stands (see `model_density.py`) and its density computed with its own B-factors; both maps are masked within
3 Å of its atoms, with a soft edge of 3 Å, the map relative to its mean outside. For each method's map:

    model_fsc               FSC of map and model, mean over shells 1 to N/2 - 1
    model_fsc_0.5, _0.143   Å, where it falls below; the Nyquist limit where it never does (model_falls_below_... is 0)
    cc_mask                 correlation of the voxels in the mask (above 0.5) with those of the model, low-passed for
                            all methods alike at `lowpass` Å, where the FSC of the full map falls below 0.143

As figure 4 of Agarwal et al. (2024), IUCrJ 11. It writes `map_model.csv`, `.json`, `.png` and `.svg`.
"""

import sys
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from analysis.files import run_study
from analysis.grids import read_on_grid
from analysis.model_density import ModelDensity, correlation, model_density
from analysis.over_entries import Headline, Row, Run, Study, check_entries_output, entries_parser, run
from analysis.subjects import FULL, Subject
from analysis.tables import COLOURS, box_plot, methods_of, summary_lines, write_study
from crefjax.errors import UserError
from crefjax.io.entries import Entry
from crefjax.io.files import map_stem
from crefjax.io.maps import Map, read_map
from crefjax.plotting import GREY, resolution_axis
from crefjax.spectral.curves import solvent_level
from crefjax.spectral.fsc import fsc_curve
from crefjax.spectral.shells import filter_shells

NAME = "map_model"
THRESHOLDS = (0.5, 0.143)
_HEADLINES = (
    Headline("model_fsc", "mean FSC to the model", 1, 4),
    Headline("model_fsc_0.5", "FSC-0.5 to the model (Å)", -1, 2),
    Headline("cc_mask", "correlation with the model", 1, 3),
)
_MOST_PANELS = 24


class Site(NamedTuple):
    """A model in a map, as all methods are measured with it.

    Attributes:
        model: its density and mask.
        lowpass: Å, where the FSC of the full map and the model falls below 0.143.
        smooth: `(z, y, x)`, the density low-passed there.
    """

    model: ModelDensity
    lowpass: float
    smooth: np.ndarray


_sites: weakref.WeakKeyDictionary[Map, Site] = weakref.WeakKeyDictionary()  # by an entry's half-map 1


def site_of(model, full: Map, *, b_factor: float | None = None) -> Site:
    """Where a model stands in a full map.

    Args:
        model: path of a PDB or mmCIF file.
        full: the map before denoising.
        b_factor: Å², one for all atoms; None for the model's own.

    Raises:
        UserError: as `model_density` does.
    """
    found = model_density(model, full, b_factor=b_factor)
    curve = _fsc(full.array, found, full.voxel_size)
    lowpass = curve.resolution(THRESHOLDS[1]).angstrom
    factors = (curve.frequency <= 1 / lowpass + 1e-9).astype(np.float64)
    smooth = filter_shells(found.density, factors)
    return Site(found, lowpass, smooth)


def beside_model(array: np.ndarray, site: Site, voxel_size: float) -> Row:
    """What is measured of one map `(z, y, x)` that lies on the grid of the site; voxel size in Å."""
    curve = _fsc(array, site.model, voxel_size)
    numbers: dict[str, float | int | str | None] = {"model_fsc": float(curve.fsc[1:-1].mean())}
    for threshold in THRESHOLDS:
        at = curve.resolution(threshold)
        numbers |= {f"model_fsc_{threshold}": at.angstrom, f"model_falls_below_{threshold}": int(at.crossed)}
    inside = site.model.mask > 0.5
    numbers |= {
        "cc_mask": correlation(array[inside], site.smooth[inside]),
        "lowpass": site.lowpass,
        "model_mask": "around the model",
        "model_place": site.model.how,
        "model_agreement": site.model.agreement,
        "atoms": site.model.atoms,
        "atoms_in_box": site.model.inside,
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
    """All maps of one specimen beside its model, a row for each.

    Args:
        maps: by the method's name, `(z, y, x)` on one grid; the full map, `FULL`, is among them.
        like: a map on that grid, whose header tells where it is.
        model: path of a PDB or mmCIF file.
        entry: name to tell.
        how: each came to be on the grid, by the method's name; None for as it is.
        b_factor: Å², one for all atoms; None for the model's own.

    Raises:
        UserError: as `model_density` does.
    """
    site = site_of(model, like.replace_array(maps[FULL]), b_factor=b_factor)
    rows = []
    for method, array in maps.items():
        row = beside_model(array, site, like.voxel_size)
        about = {"entry": entry, "method": method, "how": (how or {}).get(method, "as it is")}
        rows.append(about | row.numbers | {"curves": row.curves})
    return rows


def measure(subject: Subject) -> Row:
    """FSC and correlation of one method's map of an entry and the entry's model."""
    first, second = subject.pair
    if first not in _sites:
        mean = first.replace_array((first.array + second.array) * np.float32(0.5))
        _sites[first] = site_of(subject.entry.model, mean)
    return beside_model(subject.full.array, _sites[first], subject.voxel_size)


def needs(entry: Entry) -> str | None:
    """Why an entry cannot be measured."""
    return None if entry.model else "it has no model.cif or model.pdb"


def figure(rows: list[dict]) -> Figure:
    """A panel of FSC curves for each entry, with the crossings; from three entries on, boxes over all of them."""
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
        axes.axhline(threshold, color=GREY, linewidth=0.8, linestyle=":")
    axes.axhline(0, color=GREY, linewidth=0.8)
    lowest = -0.1
    for row in rows:
        x, fsc = (np.array(row["curves"][name])[1:-1] for name in ("frequency", "fsc"))
        is_full = row["method"] == FULL
        color = GREY if is_full else COLOURS[methods.index(row["method"]) % len(COLOURS)]
        told = [f"{row[f'model_fsc_{t}']:.2f}" if row[f"model_falls_below_{t}"] else "Nyquist" for t in THRESHOLDS]
        label = f"{row['method']}: {told[0]}, {told[1]}; {row['model_fsc']:.3f}"
        axes.plot(x, fsc, color=color, linestyle="--" if is_full else "-", linewidth=1.4, label=label)
        lowest = min(lowest, 1.1 * float(fsc.min()))
    resolution_axis(axes, row["curves"]["frequency"][-1])
    axes.set(title=row["entry"], ylabel="FSC of map and model, masked", ylim=(lowest, 1.05))
    axes.legend(fontsize=7, frameon=False, title="Å at 0.5, at 0.143; mean", title_fontsize=7, loc="upper right")


STUDY = Study(NAME, __doc__.splitlines()[0], measure, _HEADLINES, figure, needs)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    return run_study(NAME, _parser(), _run, argv)


def _parser():
    parser = entries_parser(NAME, STUDY.about)
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
    return parser


def _run(arguments):
    check_entries_output(NAME, arguments)
    if arguments.model is None and (arguments.denoised or arguments.b_factor is not None):
        raise UserError(
            "--denoised, --b-factor: expected maps and --model, found entries; give --model or leave them out"
        )
    if arguments.model is not None and arguments.methods is not None:
        raise UserError("--methods: expected entries, found maps with --model; leave it out")
    found = run([STUDY], arguments) if arguments.model is None else _measure_files(arguments)
    settings = {key: value for key, value in vars(arguments).items() if key not in ("output", "overwrite")}
    folder = Path(arguments.output)
    folder.mkdir(exist_ok=True)
    print("\n".join(summary_lines(STUDY, write_study(STUDY, found, folder, settings))))
    if found.left_out:
        print(f"{len(found.left_out)} left out, see {folder / NAME}.json")
    return 0


def _measure_files(arguments):
    start, rows = time.monotonic(), []
    paths = [Path(one) for one in arguments.entries]
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
            matched = read_on_grid(files[number], like)
            maps[method], how[method] = matched.map.array, matched.how
        rows += measure_maps(maps, like, model, entry=name, how=how, b_factor=arguments.b_factor)
        print(_lines(rows[-len(maps) :]), flush=True)
    return Run({NAME: rows}, [], time.monotonic() - start)


def _denoised(given, count):
    """Paths by the method's name, one for each map."""
    found: dict[str, list[Path]] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not (equals and name and path) or name == FULL:
            raise UserError(f"--denoised: expected NAME=MAP, found {one!r}; name the method and its map")
        found.setdefault(name, []).append(Path(path))
    for name, paths in found.items():
        if len(paths) != count:
            raise UserError(f"--denoised: expected {name} once for each of {count} maps, found {len(paths)}; give all")
    return found


def _lines(rows):
    lines = [f"{rows[0]['entry']}: model {rows[0]['model_place']}; correlation {rows[0]['model_agreement']:.2f} there"]
    for row in rows:
        told = [f"{row[f'model_fsc_{t}']:.2f} Å" if row[f"model_falls_below_{t}"] else "none" for t in THRESHOLDS]
        lines.append(
            f"  {row['method']:16} mean FSC {row['model_fsc']:.4f}  0.5 at {told[0]}  0.143 at {told[1]}  "
            f"correlation {row['cc_mask']:.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
