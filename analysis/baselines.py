"""Other methods' maps for entries, to compare with: plain filters, crefjax, and programs that the user has.

    python -m analysis.baselines ENTRY...
    python -m analysis.baselines ENTRY... --method wiener lafter_like
    python -m analysis.baselines ENTRY... --method crefjax --weights W --name mine
    python -m analysis.baselines ENTRY... --method lafter --program PATH

It writes `ENTRY/outputs/METHOD/full.mrc`, both half-maps where the method makes any, and `about.json` with method,
settings, versions and seconds. Methods:

    full             the full map, the mean of the half-maps, and no half-maps: they are the entry's
    wiener           Wiener filter, C_ref² for the full map and the FSC for half-maps, cut where it falls below 0.143
    lowpass          low-pass at the resolution of FSC 0.143
    gaussian         Gaussian blur, a half in Fourier space at that resolution, or `--sigma` Å
    nonlocal_means   non-local means at the noise that the half-maps show (needs scikit-image)
    lafter_like      a simplification of LAFTER; full map only
    crefjax          the network of `--weights`, as `crefjax denoise --halves` runs it, with `--scale` and `--mask`
    lafter, topaz    these programs, `--program` where they are not found by name; LAFTER makes no half-maps

The first five are made if none is named. The FSC is that of the masked half-maps, under the entry's mask or, where it
has none, one that is made. An output that is there is left, but for `--overwrite`, so that the same command goes on
where it was ended. What cannot be made is told and left out; the exit status is 2 if in the end there is no output.
"""

import argparse
import json
import math
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from analysis import filters
from analysis.baseline_methods import METHODS, Material, Plan
from analysis.files import load_named, run_study
from analysis.programs import PROGRAMS, find_program
from crefjax import __version__
from crefjax.errors import UserError, path_error
from crefjax.inference.request import SCALES
from crefjax.io.entries import find_entry
from crefjax.io.maps import write_maps
from crefjax.utils.atomic import atomic_directory
from crefjax.utils.progress import progress_bar
from crefjax.utils.workers import WorkerKilledError, run_tasks

NAME = "baselines"
DEFAULT = ("full", "wiener", "lowpass", "gaussian", "nonlocal_means")
ABOUT = "about.json"
FULL_MAP = "full map"  # what the studies call the mean of the half-maps
_OF_CREFJAX = dict.fromkeys(("weights", "scale", "mask"), ("crefjax",))
_OPTIONS = {"sigma": ("gaussian",), **_OF_CREFJAX, **dict.fromkeys(("program", "arguments"), tuple(PROGRAMS))}
_PACKAGES = ("numpy", "scipy", "jax", "scikit-image")


class Task(NamedTuple):
    """The outputs that one entry still needs."""

    folder: Path
    plans: tuple[Plan, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Make the outputs; returns 0, or 2 after a mistake of the user's, told in one line, or where none was made."""
    return run_study(NAME, _parser(), _run, argv)


def _parser():
    parser = argparse.ArgumentParser(prog=f"python -m analysis.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help="entry folders")
    parser.add_argument("--method", nargs="+", choices=METHODS, help=f"default: {' '.join(DEFAULT)}")
    parser.add_argument("--name", metavar="N", help="folder in the entry's outputs; default: the method's name")
    parser.add_argument("--sigma", type=float, metavar="A", help="of the Gaussian blur, Å")
    parser.add_argument("--weights", metavar="W", help="crefjax: name or folder of weights")
    parser.add_argument("--scale", choices=SCALES, help="crefjax: of its output; default: signal")
    parser.add_argument("--mask", action="store_true", help="crefjax: denoise with the mask, not without one")
    parser.add_argument("--program", metavar="PATH", help="of LAFTER or Topaz; default: found by name")
    parser.add_argument("--arguments", default="", metavar="TEXT", help="more for that program, as in a shell")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="entries at a time, a process each; default: 1"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that are there")
    return parser


def _plans(arguments):
    """What is to be made of every entry; all that can be known to be wrong without one is told."""
    methods = list(dict.fromkeys(arguments.method or DEFAULT))
    if find_spec("skimage") is None and arguments.method is None:
        methods.remove("nonlocal_means")
        _say('nonlocal_means is left out, it needs scikit-image: `pip install "crefjax[analysis]"`')
    _check(arguments, methods)
    return tuple(_plan(method, arguments.name or method, arguments) for method in methods)


def _check(arguments, methods):
    """Refuse options that are out of range, or for methods that are not to be run."""
    told = " ".join(methods)
    name = arguments.name
    if name is not None and (Path(name).name != name or name.startswith(".") or name == FULL_MAP):
        raise UserError(f"--name: expected the name of a folder, found {name!r}; choose another")
    if name is not None and len(methods) > 1:
        raise UserError(f"--name: expected one --method, found {told}; name one")
    for option, of in _OPTIONS.items():
        if getattr(arguments, option) and len(set(of) & set(methods)) != 1:
            raise UserError(f"--{option}: expected with one of --method {', '.join(of)}, found {told}")
    if "crefjax" in methods and arguments.weights is None:
        raise UserError("--method crefjax: expected --weights, found none; name a folder of weights")
    if arguments.sigma is not None and not 0 < arguments.sigma < math.inf:
        raise UserError(f"--sigma: expected a length above 0 Å, found {arguments.sigma:g}; change it")
    if arguments.jobs < 1:
        raise UserError(f"--jobs: expected 1 or more, found {arguments.jobs}; change it")


def _plan(method, name, arguments):
    if method in PROGRAMS:
        program = find_program(arguments.program or method)
        return Plan(method, name, {"arguments": shlex.split(arguments.arguments)}, program)
    if method == "crefjax":
        ((told, weights),) = load_named([arguments.weights]).items()
        settings = {
            "weights": told,
            "sha256": weights.card["sha256"],
            "scale": arguments.scale or "signal",
            "mask": arguments.mask,
        }
        return Plan(method, name, settings, str(weights.path))
    cut = {"fsc_cut": filters.CUT}
    settings = {
        "full": {},
        "wiener": cut,
        "lowpass": cut | {"edge_shells": filters.EDGE},
        "gaussian": {"sigma": arguments.sigma},
        "nonlocal_means": {"patch": filters.PATCH, "distance": filters.DISTANCE, "strength": filters.STRENGTH},
        "lafter_like": cut,
    }
    return Plan(method, name, settings[method])


def _run(arguments):
    plans, counts, tasks = _plans(arguments), dict.fromkeys(("made", "there", "failed"), 0), {}
    for path in arguments.entries:
        try:
            entry = find_entry(path)
        except UserError as error:
            _say(f"left out: {error}")
            counts["failed"] += len(plans)
            continue
        todo = [plan for plan in plans if arguments.overwrite or not _is_there(entry, plan)]
        counts["there"] += len(plans) - len(todo)
        if todo:
            tasks[entry.path.resolve()] = Task(entry.path, tuple(todo))
    if arguments.jobs > 1:  # on a GPU the first process would take most of its memory, and the others find none
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with progress_bar("filtering") as show, _ended_by_an_exception():
        try:
            for number, (task, failed) in enumerate(run_tasks(make_entry, tasks.values(), jobs=arguments.jobs)):
                for why in dict.fromkeys(failed.values()):
                    names = ", ".join(name for name, one in failed.items() if one == why)
                    _say(f"left out {names} of {task.folder.resolve().name}: {why}")
                counts["failed"] += len(failed)
                counts["made"] += len(task.plans) - len(failed)
                show((number + 1) / len(tasks), task.folder.resolve().name)
        except WorkerKilledError as error:
            raise UserError("a worker process was killed, probably out of memory; use fewer --jobs") from error
    print(f"outputs: {counts['made']} made, {counts['there']} were there, {counts['failed']} could not be made")
    return 0 if counts["made"] + counts["there"] else 2


def _is_there(entry, plan):
    """Whether the entry has the output; one that is of other settings, or not made here, is told."""
    folder = entry.path / "outputs" / plan.name
    if not os.path.lexists(folder):
        return False
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        same = (about["method"], about["settings"]) == (plan.method, plan.settings)
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        _say(f"{folder}: exists with different settings and was left unchanged; give --overwrite, or another --name")
    return True


def make_entry(task: Task) -> dict[str, str]:
    """Make the outputs of an entry; gives why those failed that did, by name. Runs in a process of its own."""
    failed = {}
    with _ended_by_an_exception():
        try:
            _check_writable(task.folder)
            material = Material(find_entry(task.folder))
        except UserError as error:
            return {plan.name: str(error) for plan in task.plans}
        for plan in task.plans:
            start = time.monotonic()
            try:
                output = METHODS[plan.method](material, plan)
                _write(material, plan, output, start)
            except UserError as error:
                failed[plan.name] = str(error)
            except MemoryError:
                failed[plan.name] = "not enough memory; close other programs, or give fewer --jobs"
    return failed


def _check_writable(entry):
    """Refuse, before any work, an entry beside which nothing can be written."""
    outputs = entry / "outputs"
    where = outputs if os.path.lexists(outputs) else entry
    if not (where.is_dir() and os.access(where, os.W_OK | os.X_OK)):
        raise path_error(where, "expected a folder to write to, found none; change its permissions or copy the entry")


def _write(material, plan, output, start):
    """Put an output in place, whole."""
    if output.full.min() == output.full.max():
        raise UserError("nothing is left of the full map; the half-maps have too little in common")
    maps = {"full": output.full}
    if output.halves is not None:
        maps |= {f"half_map_{number}": one for number, one in enumerate(output.halves, start=1)}
    about = {"method": plan.method, "settings": plan.settings, "program_or_weights": plan.path}
    about |= output.about | {"crefjax": __version__, "python": sys.version.split()[0]}
    about |= {name: version(name) for name in _PACKAGES if name != "scikit-image" or plan.method == "nonlocal_means"}
    folder = material.entry.path / "outputs" / plan.name
    try:
        folder.parent.mkdir(exist_ok=True)
        with atomic_directory(folder) as new:
            label = f"crefjax {__version__} analysis.{NAME} {plan.method}"
            write_maps(
                [(new / f"{n}.mrc", material.pair[0].replace_array(one)) for n, one in maps.items()], label=label
            )
            about["seconds"] = round(time.monotonic() - start, 2)
            (new / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        text = f"cannot be written ({error.strerror or error}), nothing was left behind; check the disk"
        raise path_error(folder.parent, text) from error
    finally:
        with suppress(OSError):
            folder.parent.rmdir()  # if it is empty


@contextmanager
def _ended_by_an_exception():
    """SIGTERM as an exception, so that unfinished folders are removed and programs that were started are ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number, _):
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(line):
    print(f"{NAME}: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
