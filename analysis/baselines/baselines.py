"""Make other methods' maps for entries, to compare with: filters, crefjax, and programs that the user has.

    python -m analysis baselines ENTRY...
    python -m analysis baselines ENTRY... --method wiener lafter_like
    python -m analysis baselines ENTRY... --method crefjax --weights W --name mine
    python -m analysis baselines ENTRY... --method lafter --program PATH

It writes `ENTRY/outputs/METHOD/full.mrc`, both half-maps if the method makes any, and `about.json` with method,
settings, versions and seconds. Methods:

    full             the full map, the mean of the half-maps, without half-maps: they are the entry's
    wiener           Wiener filter, C_ref² for the full map and the FSC for half-maps, cut where it falls below 0.143
    lowpass          low-pass at the resolution of FSC 0.143
    gaussian         Gaussian blur, a half in Fourier space at that resolution, or `--sigma` Å
    nonlocal_means   non-local means at the noise that the half-maps show (needs scikit-image)
    lafter_like      a simplification of LAFTER; full map only
    crefjax          the network of `--weights`, as `crefjax denoise --halves` runs it, with `--scale` and `--mask`
    lafter, topaz, servalcat
                     these programs, `--program` unless they are found by name; LAFTER makes no half-maps; of
                     Servalcat its `util nemap`

The first five are made by default. The FSC is that of the masked half-maps, under the entry's mask or, without one,
a mask that is made. Existing outputs are left unchanged without `--overwrite`, so that the same command resumes
where it ended. Outputs that fail are reported and skipped; the exit status is 2 if no output exists at the end.
"""

import json
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from analysis.baselines import filters
from analysis.baselines.external import PROGRAMS, find_program
from analysis.framework.output import FULL
from analysis.framework.study import Study, add_jobs, load_named, run_jobs
from crefjax import __version__
from crefjax.errors import UserError, path_error
from crefjax.inference import SCALES
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.entries import Entry, find_entry, load_mask, load_pair
from crefjax.io.maps import Map, full_map, write_maps
from crefjax.masking import make_mask
from crefjax.spectral.curves import FscCurve
from crefjax.spectral.fsc import fsc_curve
from crefjax.utils.atomic import atomic_directory
from crefjax.utils.signals import handle_signals
from crefjax.weights.store import load_weights

DEFAULT = ("full", "wiener", "lowpass", "gaussian", "nonlocal_means")
ABOUT = "about.json"
_OF_CREFJAX = dict.fromkeys(("weights", "scale", "mask"), ("crefjax",))
_OPTIONS = {"sigma": ("gaussian",), **_OF_CREFJAX, **dict.fromkeys(("program", "arguments"), tuple(PROGRAMS))}
_PACKAGES = ("numpy", "scipy", "jax", "scikit-image")


class BaselinePlan(NamedTuple):
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


class BaselineMaps(NamedTuple):
    """Maps that a method made.

    Attributes:
        full: its full map, `(z, y, x)`.
        halves: its half-maps, or None.
        about: for `about.json`.
    """

    full: np.ndarray
    halves: Sequence[np.ndarray] | None
    about: dict


class BaselineTask(NamedTuple):
    """The outputs that the entry in a folder still needs."""

    path: Path
    plans: tuple[BaselinePlan, ...]


class BaselineInput:
    """The half-maps of an entry, and what methods need of them, computed when it is first used.

    Args:
        entry: its files.

    Raises:
        UserError: half-maps or mask cannot be used; no mask could be made.
    """

    def __init__(self, entry: Entry):
        self.entry = entry
        self.pair = load_pair(entry.half_map_1, entry.half_map_2)
        self.halves = [half_map.array for half_map in self.pair]

    @cached_property
    def full(self) -> np.ndarray:
        """The mean of the half-maps."""
        return full_map(*self.halves)

    @cached_property
    def mask_and_source(self) -> tuple[Map, dict]:
        """The entry's mask, or one that is made, and for `about.json` where it is from."""
        if self.entry.mask is not None:
            return load_mask(self.entry.mask, self.pair[0]), {"measured_in": self.entry.mask.name}
        array, info = make_mask(*self.halves, self.pair[0].voxel_size)
        about = {"measured_in": "mask made from the half-maps", "notes_on_mask": list(info.notes)}
        return self.pair[0].replace_array(array), about

    @property
    def mask(self) -> Map:
        """The mask alone."""
        return self.mask_and_source[0]

    @cached_property
    def curve(self) -> FscCurve:
        """The FSC of the half-maps under the mask."""
        return fsc_curve(*self.halves, self.pair[0].voxel_size, self.mask.array, leveled=True)

    @property
    def about_curve(self) -> dict:
        """Mask and resolution (Å) for `about.json`."""
        return self.mask_and_source[1] | {"fsc_0.143": round(self.curve.resolution(filters.CUT).angstrom, 4)}


def _full(maps, plan):
    return BaselineMaps(maps.full, None, {})


def _wiener(maps, plan):
    halves = [filters.wiener(half_map, maps.curve, half=True) for half_map in maps.halves]
    return BaselineMaps(filters.wiener(maps.full, maps.curve), halves, maps.about_curve)


def _lowpass(maps, plan):
    full, *halves = (filters.lowpass(array, maps.curve) for array in (maps.full, *maps.halves))
    return BaselineMaps(full, halves, maps.about_curve)


def _gaussian(maps, plan):
    sigma, about = plan.settings["sigma"], {}
    if sigma is None:
        sigma, about = filters.gaussian_sigma(maps.curve), maps.about_curve
    voxel_size = maps.pair[0].voxel_size
    full, *halves = (filters.gaussian(array, voxel_size, sigma) for array in (maps.full, *maps.halves))
    return BaselineMaps(full, halves, about | {"sigma_used": round(sigma, 4)})


def _nonlocal_means(maps, plan):
    noise, noise_half = (filters.noise_of(*maps.halves, half=half) for half in (False, True))
    full = filters.nonlocal_means(maps.full, noise, **plan.settings)
    halves = [filters.nonlocal_means(half_map, noise_half, **plan.settings) for half_map in maps.halves]
    return BaselineMaps(full, halves, {"noise": noise})


def _lafter_like(maps, plan):
    return BaselineMaps(filters.lafter_like(*maps.halves, maps.mask.array, maps.curve), None, maps.about_curve)


def _crefjax(maps, plan):
    weights, scale = _weights(plan.path), plan.settings["scale"]
    mask = maps.mask if plan.settings["mask"] else None
    denoised = denoise_maps(DenoiseRequest(maps.pair, weights, mask, scale=scale, half_maps=True))
    halves = denoised.half_map_1.array, denoised.half_map_2.array
    return BaselineMaps(denoised.full.array, halves, {"notes": list(denoised.notes)})


@lru_cache(maxsize=1)
def _weights(path):
    return load_weights(path)


def _program(maps, plan):
    output = PROGRAMS[plan.method](maps.pair, maps.mask.array, plan.path, plan.settings["arguments"])
    halves = None if output.halves is None else [half_map.array for half_map in output.halves]
    about = {"command": output.command, "how": output.how, "said": output.said.splitlines()}
    return BaselineMaps(output.full.array, halves, maps.mask_and_source[1] | about)


METHODS: dict[str, Callable[[BaselineInput, BaselinePlan], BaselineMaps]] = {
    "full": _full,
    "wiener": _wiener,
    "lowpass": _lowpass,
    "gaussian": _gaussian,
    "nonlocal_means": _nonlocal_means,
    "lafter_like": _lafter_like,
    "crefjax": _crefjax,
    **dict.fromkeys(PROGRAMS, _program),
}


def _add_arguments(parser):
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help="entry folders")
    parser.add_argument("--method", nargs="+", choices=METHODS, help=f"default: {' '.join(DEFAULT)}")
    parser.add_argument("--name", metavar="N", help="folder in the entry's outputs; default: the method's name")
    parser.add_argument("--sigma", type=float, metavar="A", help="gaussian: standard deviation of the blur, Å")
    parser.add_argument("--weights", metavar="W", help="crefjax: name or folder of weights")
    parser.add_argument("--scale", choices=SCALES, help="crefjax: scale of the output; default: signal")
    parser.add_argument("--mask", action="store_true", help="crefjax: denoise with the mask, not without one")
    parser.add_argument("--program", metavar="PATH", help="lafter, topaz, servalcat; default: found by name")
    parser.add_argument("--arguments", default="", metavar="TEXT", help="further arguments of it, as in a shell")
    add_jobs(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")


def _plans(arguments):
    """Return the outputs to make of every entry; refuse what would be wrong for all of them."""
    methods = list(dict.fromkeys(arguments.method or DEFAULT))
    if find_spec("skimage") is None and arguments.method is None:
        methods.remove("nonlocal_means")
        _log('nonlocal_means is left out, it needs scikit-image: `pip install "crefjax[analysis]"`')
    _check(arguments, methods)
    return tuple(_plan(method, arguments.name or method, arguments) for method in methods)


def _check(arguments, methods):
    """Refuse options that are out of range, or for methods that will not be run."""
    given, name = " ".join(methods), arguments.name
    if name is not None and (Path(name).name != name or name.startswith(".") or name == FULL):
        raise UserError(f"--name: expected the name of a folder, found {name!r}; choose another")
    if name is not None and len(methods) > 1:
        raise UserError(f"--name: expected one --method, found {given}; name one")
    for option, of in _OPTIONS.items():
        if getattr(arguments, option) and len(set(of) & set(methods)) != 1:
            raise UserError(f"--{option}: expected with one of --method {', '.join(of)}, found {given}")
    if "crefjax" in methods and arguments.weights is None:
        raise UserError("--method crefjax: expected --weights, found none; name a folder of weights")
    if arguments.sigma is not None and not 0 < arguments.sigma < math.inf:
        raise UserError(f"--sigma: expected a length above 0 Å, found {arguments.sigma:g}")


def _plan(method, name, arguments):
    if method in PROGRAMS:
        program = find_program(arguments.program or method)
        return BaselinePlan(method, name, {"arguments": shlex.split(arguments.arguments)}, program)
    if method == "crefjax":
        ((weights_name, weights),) = load_named([arguments.weights]).items()
        settings = {
            "weights": weights_name,
            "sha256": weights.card["sha256"],
            "scale": arguments.scale or "signal",
            "mask": arguments.mask,
        }
        return BaselinePlan(method, name, settings, str(weights.path))
    cut = {"fsc_cut": filters.CUT}
    settings = {
        "full": {},
        "wiener": cut,
        "lowpass": cut | {"edge_shells": filters.EDGE},
        "gaussian": {"sigma": arguments.sigma},
        "nonlocal_means": {"patch": filters.PATCH, "distance": filters.DISTANCE, "strength": filters.STRENGTH},
        "lafter_like": cut,
    }
    return BaselinePlan(method, name, settings[method])


def _run(arguments, output):
    plans, tasks = _plans(arguments), {}
    written = existing = failures = 0
    for path in arguments.entries:
        try:
            entry = find_entry(path)
        except UserError as error:
            _log(f"left out: {error}")
            failures += len(plans)
            continue
        missing = [plan for plan in plans if arguments.overwrite or not _exists(entry, plan)]
        existing += len(plans) - len(missing)
        if missing:
            tasks[entry.path.resolve()] = BaselineTask(entry.path, tuple(missing))
    with _raise_on_sigterm():
        for task, failed in run_jobs(make_baselines, tasks.values(), arguments.jobs, "filtering"):
            for reason in dict.fromkeys(failed.values()):
                names = ", ".join(name for name, other in failed.items() if other == reason)
                _log(f"left out {names} of {task.path.resolve().name}: {reason}")
            failures += len(failed)
            written += len(task.plans) - len(failed)
    print(f"outputs: {written} made, {existing} were there, {failures} could not be made")
    return 0 if written + existing else 2


def _exists(entry, plan):
    """Return whether the entry has the output; report one of other settings, or of another program."""
    folder = entry.path / "outputs" / plan.name
    if not os.path.lexists(folder):
        return False
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        same = (about["method"], about["settings"]) == (plan.method, plan.settings)
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        _log(f"{folder}: exists with different settings and was left unchanged; give --overwrite, or another --name")
    return True


def make_baselines(task: BaselineTask) -> dict[str, str]:
    """Make the outputs of an entry, and return why some failed, by name; runs in a process of its own."""
    failed = {}
    with _raise_on_sigterm():
        try:
            _check_writable(task.path)
            maps = BaselineInput(find_entry(task.path))
        except UserError as error:
            return {plan.name: str(error) for plan in task.plans}
        for plan in task.plans:
            start = time.monotonic()
            try:
                _write(maps, plan, METHODS[plan.method](maps, plan), start)
            except UserError as error:
                failed[plan.name] = str(error)
            except MemoryError:
                failed[plan.name] = "not enough memory; close other programs, or give fewer --jobs"
    return failed


def _check_writable(entry):
    """Refuse, before any work, an entry beside which nothing can be written."""
    outputs = entry / "outputs"
    folder = outputs if os.path.lexists(outputs) else entry
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise path_error(folder, "expected a folder to write to, found none; change its permissions or copy the entry")


def _write(maps, plan, output, start):
    """Put an output in place, whole."""
    if output.full.min() == output.full.max():
        raise UserError("nothing is left of the full map; the half-maps have too little in common")
    arrays = {"full": output.full}
    if output.halves is not None:
        arrays |= {f"half_map_{number}": half_map for number, half_map in enumerate(output.halves, start=1)}
    about = {"method": plan.method, "settings": plan.settings, "program_or_weights": plan.path}
    about |= output.about | {"crefjax": __version__, "python": sys.version.split()[0]}
    about |= {name: version(name) for name in _PACKAGES if name != "scikit-image" or plan.method == "nonlocal_means"}
    folder, like = maps.entry.path / "outputs" / plan.name, maps.pair[0]
    try:
        folder.parent.mkdir(exist_ok=True)
        with atomic_directory(folder) as new:
            label = f"crefjax {__version__} analysis.{STUDY.name} {plan.method}"
            write_maps([(new / f"{n}.mrc", like.replace_array(array)) for n, array in arrays.items()], label=label)
            about["seconds"] = round(time.monotonic() - start, 2)
            (new / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        text = f"cannot be written ({error.strerror or error}), nothing was left behind; check the disk"
        raise path_error(folder.parent, text) from error
    finally:
        with suppress(OSError):
            folder.parent.rmdir()  # if it is empty


def _raise_on_sigterm():
    """Return a `with` in which SIGTERM is an exception, so that unfinished folders are removed and programs ended."""

    def leave(number):
        raise SystemExit(128 + number)

    return handle_signals(leave, (signal.SIGTERM,))


def _log(line):
    print(f"{STUDY.name}: {line}", file=sys.stderr, flush=True)


STUDY = Study(__name__, _run, _add_arguments, output="none")
