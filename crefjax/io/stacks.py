"""Stacks of images in MRC files (`.mrcs`): written image by image, and read one image at a time."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mrcfile
import numpy as np

from crefjax.errors import path_error
from crefjax.io.header import HEADER_BYTES
from crefjax.utils.atomic import atomic_write


@contextmanager
def write_stack(
    path: Path | str, count: int, side: int, pixel_size: float, *, overwrite: bool = False
) -> Iterator[Callable[[np.ndarray], None]]:
    """Give a function that appends images to a stack; the file appears once all are written, or not at all.

    Only the images that are handed over are in memory. The file is of mode 2 (float32), space group 0.

    Args:
        path: `.mrcs` by custom.
        count: number of images.
        side: of the square images, pixels.
        pixel_size: Å.
        overwrite: whether an existing file may be replaced.

    Raises:
        UserError: the file exists, or the file system refused.
        ValueError: images of another shape, with values that are not finite, or another number of them.
    """
    path, written, moments = Path(path), 0, _Moments()
    with atomic_write(path, needed=HEADER_BYTES + 4 * count * side**2, overwrite=overwrite, compress=False) as stream:
        stream.write(bytes(HEADER_BYTES))

        def append(images: np.ndarray) -> None:
            """Append `(images, y, x)` or one `(y, x)`."""
            nonlocal written
            images = np.ascontiguousarray(images, "<f4").reshape(-1, *np.shape(images)[-2:])
            if images.shape[1:] != (side, side):
                raise ValueError(f"expected images of {side} x {side} pixels, found {images.shape[1:]}")
            if not np.isfinite(images).all():
                raise ValueError("expected images with finite pixels")
            moments.add(images)
            written += len(images)
            stream.write(images.tobytes())

        yield append
        if written != count:
            raise ValueError(f"expected {count} images, found {written}")
        stream.seek(0)
        stream.write(_stack_header(count, side, pixel_size, moments))


class _Moments:
    """Statistics of pixels that come in parts."""

    def __init__(self):
        self.count, self.sum, self.squares, self.low, self.high = 0, 0.0, 0.0, np.inf, -np.inf

    def add(self, images):
        self.count += images.size
        self.sum += float(images.sum(dtype=np.float64))
        self.squares += float(np.square(images, dtype=np.float64).sum())
        self.low, self.high = min(self.low, float(images.min())), max(self.high, float(images.max()))

    @property
    def mean(self):
        return self.sum / self.count

    @property
    def std(self):
        return float(np.sqrt(max(self.squares / self.count - self.mean**2, 0)))


def _stack_header(count, side, pixel_size, moments):
    header = np.zeros((), mrcfile.dtypes.HEADER_DTYPE.newbyteorder("<"))
    header["nx"] = header["ny"] = header["mx"] = header["my"] = side
    header["nz"], header["mz"], header["mode"] = count, 1, 2
    header["cella"] = (side * pixel_size, side * pixel_size, pixel_size)
    header["cellb"] = (90.0, 90.0, 90.0)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"] = moments.low, moments.high
    header["dmean"], header["rms"] = moments.mean, moments.std
    header["exttyp"], header["nversion"] = b"MRCO", 20140
    header["map"], header["machst"] = b"MAP ", (0x44, 0x44, 0, 0)
    return header.tobytes()


def read_image(path: Path | str, number: int) -> np.ndarray:
    """Read one image of a stack.

    Args:
        path: of the stack.
        number: of the image, from 1, as before the @ of a STAR file.

    Returns:
        `(y, x)`, float32.

    Raises:
        UserError: the file is missing, not a stack of real images, or has no such image.
    """
    return read_images(path, [number])[0]


def read_images(path: Path | str, numbers: list[int] | np.ndarray) -> np.ndarray:
    """Read some images of a stack; the others are not loaded. See `read_image`.

    Returns:
        `(images, y, x)`, float32.
    """
    path = Path(path)
    try:
        # Permissive: stacks of many programs lack the words MAP and the machine stamp.
        with warnings.catch_warnings(action="ignore"), mrcfile.mmap(path, mode="r", permissive=True) as file:
            data = file.data
            if data is None or data.ndim not in (2, 3) or np.iscomplexobj(data):
                raise path_error(path, "expected a stack of real images, found something else; check the file")
            data = data if data.ndim == 3 else data[np.newaxis]
            for number in numbers:
                if not 1 <= number <= len(data):
                    raise path_error(
                        path, f"expected image {number}, found a stack of {len(data)}; check the STAR file"
                    )
            return np.stack([np.asarray(data[number - 1], np.float32) for number in numbers])
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise path_error(path, f"expected a stack of images, cannot be read ({why}); check the path") from error


def split_image_name(name: str, path: Path | str) -> tuple[int, str]:
    """Return number and stack of an image name such as `000012@stack.mrcs`; a name without @ is image 1.

    Args:
        name: as a STAR file has it.
        path: of the STAR file, for the message.

    Raises:
        UserError: what is before the @ is no number from 1.
    """
    number, at, stack = name.partition("@")
    if not at:
        return 1, name
    if not (number.isdecimal() and int(number) > 0 and stack):
        raise path_error(path, f"expected image names such as 000012@stack.mrcs, found {name!r}; correct the file")
    return int(number), stack
