"""`crefjax images extract-noise`."""

from __future__ import annotations

from pathlib import Path

from crefjax.cli.common import add_device, add_overwrite, add_verbosity, number, positive
from crefjax.cli.images_denoise import add_contrast
from crefjax.cli.messages import detail, log, result, timed
from crefjax.errors import UserError, path_error
from crefjax.utils.progress import progress_bar

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
    parser.add_argument("--weights", metavar="W", help="name or folder of weights for images")
    add_contrast(parser)
    parser.add_argument("--patch", metavar="N", type=int, default=320, help="side of the patches, pixels")
    parser.add_argument(
        "--threshold",
        metavar="T",
        type=number,
        default=0.7,
        help="least structural similarity of the quarters of a denoised patch",
    )
    parser.add_argument(
        "--max-memory", metavar="GIB", type=positive, help="memory to keep within (default: half of what is free)"
    )
    add_device(parser)
    add_overwrite(parser)
    add_verbosity(parser)


def run(arguments) -> None:
    """Find patches of noise, cut them out, and write them with their places."""
    from crefjax.io.stacks import ImageStack, write_stack
    from crefjax.io.star import write_star

    output = Path(arguments.output)
    if output.suffix.lower() != ".mrcs":
        raise path_error(output, "the name of a stack must end in .mrcs; rename it")
    star = output.with_suffix(".star")
    for path in (output, star):
        if path.exists() and not arguments.overwrite:
            raise path_error(path, "the file exists and is not replaced; choose another name or give `overwrite`")
    sources = [Path(name) for name in arguments.micrographs]
    denoised = _denoised(arguments, sources)
    found: list[tuple[Path, int, int, int]] = []
    sizes = set()
    for number_, path in enumerate(sources, start=1):
        with ImageStack(path) as stack, timed("finding noise"):
            sizes.add(stack.pixel_size)
            for image in range(stack.count):
                label = f"micrograph {number_} of {len(sources)}" if len(sources) > 1 else "finding noise"
                with progress_bar(label) as show:
                    places = _places(arguments, stack, image, denoised[path], show)
                detail(f"{path}: {len(places)} patches in image {image + 1}")
                found += [(path, image, top, left) for top, left in places]
    if not found:
        raise UserError(
            "extract-noise: expected patches of noise, found none; lower the `threshold`, or take smaller patches with "
            "`patch`"
        )
    side = arguments.patch
    size = next(iter(sizes)) or 0.0
    with write_stack(output, len(found), side, size, overwrite=arguments.overwrite) as append:
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
    result(f"{len(found)} patches of noise of {side} pixels from {len(sources)} files; wrote {output}")


def _denoised(arguments, sources):
    """Return the denoised file of every micrograph, or None for those to denoise here."""
    from crefjax.io.stacks import ImageStack

    if arguments.denoised is None:
        return dict.fromkeys(sources)
    if len(arguments.denoised) != len(sources):
        raise UserError(
            f"extract-noise: expected {len(sources)} denoised micrographs, found {len(arguments.denoised)}; give one "
            "for each"
        )
    pairs = dict(zip(sources, map(Path, arguments.denoised), strict=True))
    for raw, clean in pairs.items():
        with ImageStack(raw) as a, ImageStack(clean) as b:
            if (a.count, a.shape) != (b.count, b.shape):
                raise path_error(
                    clean, f"expected {a.count} images of {a.shape} pixels, as {raw} has, found {b.count} of {b.shape}"
                )
    return pairs


def _places(arguments, stack, image, denoised, show):
    """Return the places of noise in one micrograph."""
    from crefjax.images.noise_patches import noise_places
    from crefjax.io.stacks import ImageStack

    if denoised is not None:
        with ImageStack(denoised) as other:
            clean = other.read([image])[0]
    else:
        from crefjax.images.denoise import denoise_images, plan_images
        from crefjax.weights.store import load_weights

        weights = load_weights(arguments.weights, "images")
        plan = plan_images(stack.shape, weights, device=arguments.device, max_memory=arguments.max_memory)
        sign = 1 if arguments.contrast == "bright" else -1
        clean = denoise_images(stack.read([image]), weights, plan, sign=sign, progress=lambda s: show(0.9 * s))[0]
    return noise_places(clean, side=arguments.patch, threshold=arguments.threshold)
