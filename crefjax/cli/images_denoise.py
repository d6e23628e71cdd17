"""`crefjax images denoise`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from crefjax.cli.common import add_shared, add_verbosity, positive
from crefjax.cli.messages import detail, log, result, timed, warn
from crefjax.errors import UserError, path_error
from crefjax.io.files import file_state, is_same_file
from crefjax.utils.progress import progress_bar

if TYPE_CHECKING:
    from crefjax.weights.store import Weights

RECORD, FORMAT_VERSION = "denoised.json", 1
_SUFFIXES = (".mrc", ".mrcs")
_OTHER_SIZE = 1.3  # factor on the pixel sizes of the training beyond which weights are warned of
EPILOG = (
    "Denoised images are for looking and for finding particles. Do not reconstruct from denoised particles: the result "
    "is biased towards what the network was trained on. A folder that was stopped is continued by the same command."
)


class _File(NamedTuple):
    """A stack to denoise, its output, and whether its particles are bright; None if this is not known."""

    source: Path
    target: Path
    bright: bool | None


def add_arguments(parser):
    """Add the arguments of `crefjax images denoise`."""
    parser.add_argument(
        "inputs", metavar="IMAGES", nargs="+", help="stacks or micrographs (.mrc, .mrcs), or one STAR file of them"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="stack to write, for one input; or a folder, for several or a STAR file",
    )
    parser.add_argument("--weights", metavar="W", help="weights by name or folder (default: images)")
    add_contrast(parser, "dark for micrographs of a STAR file and single images, bright otherwise")
    parser.add_argument(
        "--max-memory", metavar="GIB", type=positive, help="memory limit, GiB (default: half of what is free)"
    )
    add_shared(parser, "device", "overwrite")
    add_verbosity(parser)


def add_contrast(parser, default):
    """Add `--contrast`; `default` describes its default."""
    parser.add_argument(
        "--contrast",
        choices=("bright", "dark"),
        help=f"whether particles are brighter or darker than the ice (default: {default})",
    )


def run(arguments) -> None:
    """Denoise every image, stack by stack."""
    from crefjax.io.stacks import ImageStack
    from crefjax.weights.store import load_weights

    output = Path(arguments.output)
    files, listed = _files(arguments, output)
    for file in files:
        with ImageStack(file.source):  # a mistake in the last file is reported before the first is denoised
            pass
    weights = load_weights(arguments.weights, "images")
    detail(f"weights: {weights.name}, {weights.path}")
    asked = {"weights": weights.card.get("sha256", ""), "contrast": arguments.contrast or "by default"}
    record = _Record(output, asked, arguments.overwrite) if _is_folder(output, files, listed) else None
    waiting = [file for file in files if not (record and record.has(file))]
    if len(waiting) < len(files):
        log(f"{len(files) - len(waiting)} of {len(files)} files were finished before")
    count = 0
    for number, file in enumerate(waiting, start=1):
        label = "denoising" if len(waiting) == 1 else f"denoising {number} of {len(waiting)}"
        with timed("denoising"), progress_bar(label) as show:
            count += denoise_file(file, weights, arguments, show)
        if record:
            record.add(file)
    if listed:
        _write_list(listed, files, output)
    result(f"denoised {count} image{'' if count == 1 else 's'} with {weights.name}; wrote {output}")
    log("note: these are for looking and finding particles; a reconstruction from denoised particles is biased")


def denoise_file(file: _File, weights: Weights, arguments, show) -> int:
    """Denoise one stack, a few images at a time; return the number of its images."""
    from crefjax.images.denoise import denoise_images, plan_images
    from crefjax.io.stacks import ImageStack, write_stack

    with ImageStack(file.source) as stack:
        _check_pixel_size(stack, weights)
        plan = plan_images(stack.shape, weights, device=arguments.device, max_memory=arguments.max_memory)
        detail(f"{file.source}: {plan.describe()}")
        sign = 1 if (stack.count > 1 if file.bright is None else file.bright) else -1
        file.target.parent.mkdir(parents=True, exist_ok=True)
        settings = {"overwrite": arguments.overwrite}
        with write_stack(file.target, stack.count, stack.shape, stack.pixel_size or 0.0, **settings) as append:
            for first in range(0, stack.count, plan.batch):
                part = range(first, min(first + plan.batch, stack.count))
                progress = functools.partial(show_part, show, first / stack.count, len(part) / stack.count)
                append(denoise_images(stack.read(part), weights, plan, sign=sign, progress=progress))
        return stack.count


def show_part(show, before, size, share):
    """Show the progress of the whole from that of one part, given where the part starts and its size, as shares."""
    show(before + share * size)


def _files(arguments, output):
    """Return the stacks to denoise, and the STAR file that lists them, or None."""
    sources = [Path(name) for name in arguments.inputs]
    stars = [path for path in sources if path.suffix.lower() == ".star"]
    if stars and len(sources) > 1:
        raise UserError(f"{stars[0]}: expected a STAR file alone, found other inputs with it; give one at a time")
    listed = None
    if stars:
        from crefjax.io.stacks import read_listed_images

        listed = read_listed_images(stars[0])
        sources = list(listed.stacks.values())
        if is_same_file(listed.path, output / listed.path.name):
            raise path_error(listed.path, "the output would replace its input; choose another folder")
    bright = listed.holds_particles if listed else None
    if arguments.contrast:
        bright = arguments.contrast == "bright"
    if output.suffix.lower() in _SUFFIXES and not output.is_dir():
        if listed or len(sources) > 1:
            raise path_error(output, "expected a folder for several stacks, found the name of one; choose another")
        files = [_File(sources[0], output, bright)]
    else:
        files = [_File(source, output / source.name, bright) for source in sources]
    names: dict[Path, Path] = {}
    for file in files:
        if file.target in names:
            raise path_error(file.source, f"has the name of {names[file.target]}; denoise it into another folder")
        names[file.target] = file.source
        if is_same_file(file.source, file.target):
            raise path_error(file.target, "the output would replace its input; choose another name")
    if not _is_folder(output, files, listed) and output.exists() and not arguments.overwrite:
        raise path_error(output, "the file exists and is not replaced; choose another name or give `overwrite`")
    if not output.absolute().parent.is_dir():
        raise path_error(output, f"the folder {output.absolute().parent} does not exist; make it first")
    return files, listed


def _is_folder(output, files, listed):
    return bool(listed) or len(files) > 1 or files[0].target != output


def _check_pixel_size(stack, weights):
    sizes = weights.card.get("pixel_sizes")
    if sizes and stack.pixel_size and stack.pixel_size != 1.0:  # 1 stands for unknown in many files
        least, largest = sizes
        if not least / _OTHER_SIZE <= stack.pixel_size <= largest * _OTHER_SIZE:
            warn(
                f"{stack.path}: pixels of {stack.pixel_size:.4g} Å; the weights {weights.name} were trained on "
                + (f"{least:.4g} Å" if least == largest else f"{least:.4g} to {largest:.4g} Å")
            )


def _write_list(listed, files, output):
    from crefjax.io.star import write_star

    names = {name: str(file.target) for name, file in zip(listed.stacks, files, strict=True)}
    write_star(output / listed.path.name, listed.renamed(names))


class _Record:
    """Record of the finished files of an output folder, and of their settings."""

    def __init__(self, folder: Path, asked: dict, overwrite: bool):
        self.path, self.overwrite = folder / RECORD, overwrite
        self.content = {"format_version": FORMAT_VERSION, "asked": asked, "finished": {}}
        if folder.exists() and not folder.is_dir():
            raise path_error(folder, "expected a folder, found a file; choose another name")
        if not folder.is_dir() or not any(folder.iterdir()) or overwrite:
            return
        try:
            earlier = json.loads(self.path.read_text(encoding="utf-8"))
            same = earlier["format_version"] == FORMAT_VERSION and earlier["asked"] == asked
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = f"expected an empty folder or one with a {RECORD}, found other files; choose another name"
            raise path_error(folder, text) from error
        if not same:
            raise path_error(
                folder, "was denoised with other weights or settings; give `overwrite` or choose another folder"
            )
        self.content = earlier

    def has(self, file: _File) -> bool:
        """Return whether a stack is finished.

        Raises:
            UserError: it has changed since, or another file has the name of its output.
        """
        if not file.target.exists() or self.overwrite:
            return False
        if self.content["finished"].get(file.target.name) != file_state(file.source):
            raise path_error(
                file.source, f"has changed since it was denoised to {file.target}; give `overwrite` to denoise it again"
            )
        return True

    def add(self, file: _File) -> None:
        """Note that a stack is finished."""
        from crefjax.utils.atomic import write_json

        self.content["finished"][file.target.name] = file_state(file.source)
        write_json(self.path, self.content)
