"""`crefjax images extract-noise`."""

from __future__ import annotations

import functools
from pathlib import Path

from crefjax.cli.common import add_shared, add_verbosity, number, positive
from crefjax.cli.images_denoise import add_contrast, show_part
from crefjax.cli.messages import detail, log, result, timed
from crefjax.errors import UserError, path_error
from crefjax.io.files import check_output_file
from crefjax.utils.atomic import check_free
from crefjax.utils.progress import progress_bar

_SAME_SIZE = 0.01  # relative difference below which pixel sizes count as equal
_SHARE_OF_DENOISING = 0.9  # of the time
EPILOG = (
    "The micrographs are denoised, or given denoised by --denoised; where a denoised patch shows nothing, the patch is "
    "cut out of the micrograph as it is (Li et al. 2022). The STAR file beside the stack has the place of every patch."
)


def add_arguments(parser):
    """Add the arguments of `crefjax images extract-noise`."""
    parser.add_argument("micrographs", metavar="MICROGRAPH", nargs="+", help="micrographs (.mrc, .mrcs), of any size")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="stack of patches to write (.mrcs)")
    parser.add_argument(
        "--denoised",
        metavar="D",
        nargs="+",
        help="denoised micrographs in the same order (default: denoised here by --weights)",
    )
    parser.add_argument("--weights", metavar="W", help="weights by name or folder (default: images)")
    add_contrast(parser, "dark")
    parser.add_argument("--patch", metavar="N", type=int, default=320, help="side of the patches, pixels")
    parser.add_argument(
        "--threshold",
        metavar="T",
        type=number,
        default=0.7,
        help="least structural similarity of the quarters of a denoised patch",
    )
    parser.add_argument(
        "--max-memory", metavar="GIB", type=positive, help="memory limit, GiB (default: half of what is free)"
    )
    add_shared(parser, "device", "overwrite")
    add_verbosity(parser)


def run(arguments) -> None:
    """Find patches of noise, cut them out, and write them with their places."""
    from crefjax.io.stacks import ImageStack, write_stack
    from crefjax.io.star import write_star

    output = Path(arguments.output)
    star = output.with_suffix(".star")
    sources = [Path(name) for name in arguments.micrographs]
    _check_output(arguments, output, star, sources)
    pixel_size = _check_micrographs(arguments, sources)
    denoised = _denoiser(arguments, sources)
    found: list[tuple[Path, int, int, int]] = []
    for index, path in enumerate(sources):
        label = f"micrograph {index + 1} of {len(sources)}" if len(sources) > 1 else "finding noise"
        with timed("finding noise"), progress_bar(label) as show:
            found += _places(arguments, path, functools.partial(denoised, index), show)
    if not found:
        raise UserError(
            "extract-noise: expected patches of noise, found none; lower the `threshold`, or use smaller patches with "
            "`patch`"
        )
    side = arguments.patch
    with write_stack(output, len(found), side, pixel_size, overwrite=arguments.overwrite) as append:
        for path, image, top, left in found:
            with ImageStack(path) as stack:
                append(stack.read_part(image, (slice(top, top + side), slice(left, left + side))))
    write_star(
        star,
        {
            "noise": {
                "rlnImageName": [f"{index:06d}@{output.name}" for index in range(1, len(found) + 1)],
                "rlnMicrographName": [f"{image + 1:06d}@{path}" for path, image, _, _ in found],
                "rlnCoordinateX": [left + side // 2 for *_, left in found],
                "rlnCoordinateY": [top + side // 2 for *_, top, _ in found],
            }
        },
    )
    log(f"places of the patches: {star}")
    files = f"{len(sources)} file{'s' if len(sources) > 1 else ''}"
    result(f"{len(found)} patches of noise of {side} pixels from {files}; wrote {output}")


def _check_output(arguments, output, star, sources):
    """Check that the stack and its STAR file can be written, and reject options that would have no effect."""
    inputs = [*sources, *(arguments.denoised or [])]
    check_output_file(output, suffixes=(".mrcs",), inputs=inputs)
    check_output_file(star, inputs=inputs)
    for path in (output, star):
        check_free(path, arguments.overwrite)
    if arguments.denoised is not None:
        for name in ("weights", "contrast", "max_memory"):
            if getattr(arguments, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} has no effect with --denoised; omit one of them")


def _check_micrographs(arguments, sources):
    """Check the micrographs before they are denoised; return their pixel size, Å, 0 if they have none."""
    from crefjax.images.noise_patches import check_extraction
    from crefjax.io.stacks import ImageStack

    sizes = {}
    for path in sources:
        with ImageStack(path) as stack:
            check_extraction(stack.shape, arguments.patch, arguments.threshold)
            sizes[path] = stack.pixel_size or 0.0
    first = sizes[sources[0]]
    for path, size in sizes.items():
        if abs(size - first) > _SAME_SIZE * first:
            raise path_error(path, f"expected pixels of {first:.4g} Å, as {sources[0]} has, found {size:.4g} Å")
    return first


def _denoiser(arguments, sources):
    """Return a function of a file's index, its open stack, an image, and a progress; it gives the denoised image."""
    from crefjax.io.stacks import ImageStack

    if arguments.denoised is None:
        from crefjax.images.denoise import denoise_images, plan_images
        from crefjax.weights.store import load_weights

        weights = load_weights(arguments.weights, "images")
        sign = 1 if arguments.contrast == "bright" else -1

        def denoise(index, stack, image, progress):
            plan = plan_images(stack.shape, weights, device=arguments.device, max_memory=arguments.max_memory)
            return denoise_images(stack.read([image]), weights, plan, sign=sign, progress=progress)[0]

        return denoise

    if len(arguments.denoised) != len(sources):
        raise UserError(
            f"extract-noise: expected {len(sources)} denoised micrographs, found {len(arguments.denoised)}; give one "
            "for each"
        )
    for raw, clean in zip(sources, arguments.denoised, strict=True):
        with ImageStack(raw) as a, ImageStack(clean) as b:
            if (a.count, a.shape) != (b.count, b.shape):
                raise path_error(
                    clean, f"expected {a.count} images of {a.shape} pixels, as {raw} has, found {b.count} of {b.shape}"
                )

    def read(index, stack, image, progress):
        with ImageStack(arguments.denoised[index]) as other:
            return other.read([image])[0]

    return read


def _places(arguments, path, denoised, show):
    """Return file, image, and upper left corner of the patches of noise in the micrographs of a file."""
    from crefjax.images.noise_patches import noise_places
    from crefjax.io.stacks import ImageStack

    found = []
    with ImageStack(path) as stack:
        for image in range(stack.count):
            before, size = image / stack.count, 1 / stack.count
            clean = denoised(stack, image, functools.partial(show_part, show, before, _SHARE_OF_DENOISING * size))
            before, size = before + _SHARE_OF_DENOISING * size, (1 - _SHARE_OF_DENOISING) * size
            places = noise_places(
                clean,
                side=arguments.patch,
                threshold=arguments.threshold,
                progress=functools.partial(show_part, show, before, size),
            )
            detail(f"{path}: {len(places)} patches in image {image + 1}")
            found += [(path, image, top, left) for top, left in places]
    return found
