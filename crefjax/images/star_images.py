"""Particle images that a STAR file lists: the stacks that it names, found before long work."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crefjax.errors import path_error
from crefjax.io.stacks import ImageStack, split_image_name
from crefjax.io.star import Block, find_column, read_star

_LABELS = ("rlnImageName", "rlnMicrographName")


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
        """Whether the images are particles, which are bright by RELION's custom, rather than micrographs."""
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

    Names are relative to the folder of work, as RELION's are to its project, or to the STAR file's own folder.

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
    for folder in _folders(path):
        if (folder / stack).is_file():
            return folder / stack
    raise path_error(path, f"row {row} names {stack}, which does not exist; correct the name, or work in its folder")


def _folders(path: Path) -> Sequence[Path]:
    return Path(), path.parent
