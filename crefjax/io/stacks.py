"""Stacks of images in MRC files (`.mrcs`), written and read one image at a time, and STAR files that list them."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import mrcfile
import numpy as np

from crefjax.errors import path_error
from crefjax.io.files import is_stack_name
from crefjax.io.header import HEADER_BYTES, new_header
from crefjax.io.star import Block, find_column, read_star
from crefjax.utils.atomic import atomic_write

_LABELS = ("rlnImageName", "rlnMicrographName")


@contextmanager
def write_stack(
    path: Path | str, count: int, side: int | tuple[int, int], pixel_size: float, *, overwrite: bool = False
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends images to a stack; the file appears once all are written, or not at all.

    Only the images that are being appended are in memory. The file is of mode 2 (float32), space group 0.

    Args:
        path: the file; its suffix is `.mrcs` by convention.
        count: number of images.
        side: of the square images, pixels, or `(y, x)` of others.
        pixel_size: Å.
        overwrite: whether an existing file may be replaced.

    Raises:
        UserError: the file exists, or the file system refused.
        ValueError: images of another shape, with values that are not finite, or another number of them.
    """
    path, written, moments = Path(path), 0, _Moments()
    shape = (side, side) if isinstance(side, int) else tuple(side)
    needed = HEADER_BYTES + 4 * count * shape[0] * shape[1]
    with atomic_write(path, needed=needed, overwrite=overwrite, compress=False) as stream:
        stream.write(bytes(HEADER_BYTES))

        def append(images: np.ndarray) -> None:
            """Append `(images, y, x)` or one `(y, x)`."""
            nonlocal written
            images = np.ascontiguousarray(images, "<f4").reshape(-1, *np.shape(images)[-2:])
            if images.shape[1:] != shape:
                raise ValueError(f"expected images of {shape[0]} x {shape[1]} pixels, found {images.shape[1:]}")
            if not np.isfinite(images).all():
                raise ValueError("expected images with finite pixels")
            moments.add(images)
            written += len(images)
            stream.write(images.tobytes())

        yield append
        if written != count:
            raise ValueError(f"expected {count} images, found {written}")
        stream.seek(0)
        stream.write(_stack_header(count, shape, pixel_size, moments))


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


def _stack_header(count, shape, pixel_size, moments):
    header = new_header((count, *shape), pixel_size, stack=True)
    return header.for_output((moments.low, moments.high, moments.mean, moments.std))


class ImageStack:
    """A stack of images, or a single image; only the requested parts are read.

    Use it in a `with`, or close it.

    Attributes:
        path: the file.
        count: images.
        shape: `(y, x)`, pixels.
        pixel_size: Å; None if the header has none.
    """

    def __init__(self, path: Path | str):
        """Open a file.

        Args:
            path: an MRC file; real ones lack the map's mark, call themselves volumes, or have no pixel size.

        Raises:
            UserError: the file is missing, cannot be read, holds no real numbers, or is a volume: a cube whose name
                does not end in `.mrcs` or `.st`.
        """
        self.path = path = Path(path)
        self._file, data = _open(path)
        if data.ndim == 3 and len(set(data.shape)) == 1 and len(data) > 1 and not is_stack_name(path.name):
            self.close()
            sides = "x".join(map(str, data.shape))
            raise path_error(
                path, f"expected images, found a volume of {sides} voxels; give a stack, or name it .mrcs if it is one"
            )
        self._data = data if data.ndim == 3 else data[np.newaxis]
        self.count, self.shape = len(self._data), tuple(int(n) for n in self._data.shape[1:])
        size = float(self._file.voxel_size.x)
        self.pixel_size = size if np.isfinite(size) and size > 0 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._data = None
        with warnings.catch_warnings(action="ignore"):
            self._file.close()

    def read(self, numbers: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        """Read images by their numbers from 0.

        Returns:
            `(images, y, x)`, float32.

        Raises:
            UserError: a pixel is NaN or infinite; the message has the image's number from 1.
        """
        chosen = range(self.count)[numbers] if isinstance(numbers, slice) else [int(number) for number in numbers]
        images = np.empty((len(chosen), *self.shape), np.float32)
        for image, number in zip(images, chosen, strict=True):
            image[...] = self._data[number]
            if not np.isfinite(image).all():
                raise path_error(
                    self.path, f"expected finite pixels, found NaN or infinite ones in image {number + 1}; leave it out"
                )
        return images

    def read_part(self, number: int, part: tuple[slice, slice]) -> np.ndarray:
        """Read a part of an image by its number from 0, float32; see `read`."""
        image = np.asarray(self._data[number][part], np.float32)
        if not np.isfinite(image).all():
            raise path_error(
                self.path, f"expected finite pixels, found NaN or infinite ones in image {number + 1}; leave it out"
            )
        return image


def _open(path):
    """Return mrcfile's object and its memory-mapped data."""
    try:
        # Permissive: stacks of many programs lack the words MAP and the machine stamp.
        with warnings.catch_warnings(action="ignore"):
            file = mrcfile.mmap(path, mode="r", permissive=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise path_error(path, f"expected a stack of images, cannot be read ({why}); check the path") from error
    data = file.data
    if data is None or data.ndim not in (2, 3) or 0 in data.shape or np.iscomplexobj(data):
        file.close()
        raise path_error(path, "expected a stack of real images, found something else; check the file")
    return file, data


def split_image_name(name: str, path: Path | str) -> tuple[int, str]:
    """Return number and stack of an image name such as `000012@stack.mrcs`; a name without @ is image 1.

    Args:
        name: as a STAR file has it.
        path: of the STAR file, for the message.

    Raises:
        UserError: the part before the @ is not a number of 1 or more.
    """
    number, at, stack = name.partition("@")
    if not at:
        return 1, name
    if not (number.isdecimal() and int(number) > 0 and stack):
        raise path_error(path, f"expected image names such as 000012@stack.mrcs, found {name!r}; correct the file")
    return int(number), stack


@dataclass(frozen=True)
class ListedImages:
    """The images of a STAR file.

    Attributes:
        path: the file.
        blocks: all of its blocks.
        block: name of the block of the images.
        label: of their column.
        stacks: path of every stack, in the order in which they first appear, by its name in the file.
    """

    path: Path
    blocks: dict[str, Block]
    block: str
    label: str
    stacks: dict[str, Path]

    @property
    def holds_particles(self) -> bool:
        """Whether the images are particles, which are bright by RELION's convention, rather than micrographs."""
        return self.label == _LABELS[0]

    def renamed(self, names: dict[str, str]) -> dict[str, Block]:
        """Return the blocks with other names of the stacks.

        Args:
            names: by the names in the file.
        """
        column = []
        for text in find_column(self.blocks[self.block], self.label, self.path):
            number, at, stack = text.partition("@")
            column.append(f"{number}@{names[stack]}" if at else names[text])
        return {**self.blocks, self.block: self.blocks[self.block] | {self.label: column}}


def read_listed_images(path: Path | str) -> ListedImages:
    """Read a STAR file of particles or micrographs, and find its stacks.

    Names are relative to the working folder, as in a RELION project, or to the STAR file's own folder.

    Raises:
        UserError: no column names images, a stack is missing or cannot be read, or a row asks for an image that its
            stack does not have.
    """
    path = Path(path)
    blocks = read_star(path)
    places = [(name, label) for label in _LABELS for name, block in blocks.items() if label in block]
    if not places:
        raise path_error(path, f"expected a column {' or '.join(_LABELS)}, found none; give a file of images")
    name, label = places[0]
    stacks: dict[str, Path] = {}
    largest: dict[str, tuple[int, int]] = {}
    for row, text in enumerate(find_column(blocks[name], label, path), start=1):
        number, stack = split_image_name(text, path)
        if stack not in stacks:
            stacks[stack] = _find(stack, path, row)
        if number > largest.get(stack, (0, 0))[0]:
            largest[stack] = number, row
    for stack, (number, row) in largest.items():
        with ImageStack(stacks[stack]) as images:
            if number > images.count:
                raise path_error(
                    path, f"expected at most image {images.count} of {stack}, found {number} in row {row}; correct it"
                )
    return ListedImages(path, blocks, name, label, stacks)


def _find(stack: str, path: Path, row: int) -> Path:
    for folder in (Path(), path.parent):
        if (folder / stack).is_file():
            return folder / stack
    raise path_error(path, f"row {row} names {stack}, which does not exist; correct the name, or work in its folder")
