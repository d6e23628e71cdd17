"""STAR files, as RELION and related programs write them: named blocks of pairs or tables, and columns of particles.

A file is a dictionary from the names of its blocks (without `data_`) to the blocks. A block is a dictionary from labels
(without the leading underscore) to one text for a pair, or to a list of texts for a column of a table. A block has
either pairs or one table, as in RELION's own files. Values stay text until `find_number` or `find_numbers` converts
them.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import gemmi
import numpy as np

from crefjax.errors import path_error
from crefjax.utils.atomic import write_bytes

Block = dict[str, str | list[str]]
_VERSION = "# version 30001"  # by which RELION 3.1 and later recognize their own layout


def read_star(path: Path | str) -> dict[str, Block]:
    """Read a STAR file.

    Raises:
        UserError: the file is missing, unreadable, or not a STAR file.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise path_error(path, f"expected a STAR file, cannot be read ({error.strerror}); check the path") from error
    try:
        document = gemmi.cif.read_string(text)
    except (RuntimeError, ValueError) as error:
        why = " ".join(str(error).replace("string:", "line ", 1).split())
        raise path_error(path, f"expected a STAR file, cannot be read as one: {why}; check the file") from error
    if not len(document):
        raise path_error(path, "expected a STAR file, found no data block; check the file")
    blocks: dict[str, Block] = {}
    for block in document:
        blocks.setdefault(block.name.strip(), {}).update(_content(block))
    return blocks


def _content(block):
    content: Block = {}
    for item in block:
        if item.pair is not None:
            content[item.pair[0].removeprefix("_")] = gemmi.cif.as_string(item.pair[1])
        elif item.loop is not None:
            tags = [tag.removeprefix("_") for tag in item.loop.tags]
            values = [gemmi.cif.as_string(value) for value in item.loop.values]
            content |= {tag: values[column :: len(tags)] for column, tag in enumerate(tags)}
    return content


def find_block(blocks: Mapping[str, Block], name: str, path: Path | str) -> Block:
    """Return a block by its name.

    Args:
        blocks: of the file.
        name: without `data_`.
        path: of the file, for the message.

    Raises:
        UserError: there is none.
    """
    if name not in blocks:
        found = ", ".join(f"data_{other}" for other in blocks) or "none"
        raise path_error(path, f"expected a block data_{name}, found {found}; check that this is the right file")
    return blocks[name]


def find_text(block: Block, label: str, path: Path | str) -> str:
    """Return the text of a pair, or of the only row of a table.

    Raises:
        UserError: there is no such label, or it has not exactly one value.
    """
    value = block.get(label)
    if isinstance(value, list):
        if len(value) != 1:
            raise path_error(path, f"expected one value of {label}, found {len(value)}; check the file")
        value = value[0]
    if value is None:
        raise path_error(path, f"expected {label}, found no such label; check that this is the right file")
    return value


def find_number(block: Block, label: str, path: Path | str) -> float:
    """Return the number of a pair, or of the only row of a table; see `find_text`.

    Raises:
        UserError: there is none, or it is not finite.
    """
    return float(_as_numbers([find_text(block, label, path)], label, path)[0])


def find_column(block: Block, label: str, path: Path | str) -> list[str]:
    """Return the texts of a column, or of a pair as a column of one row.

    Raises:
        UserError: there is no such label.
    """
    value = block.get(label)
    if value is None:
        raise path_error(path, f"expected a column {label}, found no such label; check that this is the right file")
    return value if isinstance(value, list) else [value]


def find_numbers(block: Block, label: str, path: Path | str) -> np.ndarray:
    """Return the numbers of a column, float64 `(rows,)`; see `find_column`.

    Raises:
        UserError: there is no such label, or a value is not a finite number.
    """
    return _as_numbers(find_column(block, label, path), label, path)


def _as_numbers(texts, label, path):
    try:
        values = np.array([float(text) for text in texts], np.float64)
    except ValueError:
        values = None
    if values is None or not np.isfinite(values).all():
        wrong = next(text for text in texts if not _is_finite(text))
        raise path_error(path, f"expected finite numbers as {label}, found {wrong[:40]!r}; correct the file")
    return values


def _is_finite(text):
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def write_star(path: Path | str, blocks: Mapping[str, Mapping[str, object]]) -> None:
    """Write a STAR file in the layout of RELION 3.1 and later; complete or not at all, an existing one is replaced.

    Args:
        path: of the file.
        blocks: by name; each is a dictionary from labels to one value for a pair, or to a sequence of values for a
            column, all of one length. Texts are written as they are, integers and floats as numbers.

    Raises:
        UserError: the file system refused.
        ValueError: a text is empty or has blanks, which RELION would not read; columns differ in length; or a block has
            both pairs and columns.
    """
    lines: list[str] = []
    for name, block in blocks.items():
        lines += ["", _VERSION, "", f"data_{name}", "", *_block_lines(block), ""]
    write_bytes(Path(path), "\n".join([*lines, ""]).encode())


def _block_lines(block: Mapping[str, object]) -> Iterable[str]:
    columns = {label: _column(values) for label, values in block.items()}
    if not any(isinstance(column, list) for column in columns.values()):
        width = max(map(len, columns), default=0) + 1
        return [f"_{label:<{width}} {text}" for label, text in columns.items()]
    if not all(isinstance(column, list) for column in columns.values()):
        raise ValueError(f"expected either pairs or columns, found both in {sorted(columns)}")
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError(f"expected columns of one length, found {[len(column) for column in columns.values()]}")
    widths = [max(map(len, column), default=0) for column in columns.values()]
    rows = zip(*columns.values(), strict=True)
    head = ["loop_", *(f"_{label} #{number}" for number, label in enumerate(columns, start=1))]
    return head + [" ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True)) for row in rows]


def _column(values) -> str | list[str]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, Sequence) and not isinstance(values, str):
        return [_text(value) for value in values]
    return _text(values)


def _text(value) -> str:
    text = f"{value:.6f}" if isinstance(value, float) else str(value)
    if not text or len(text.split()) != 1 or text != text.strip():
        raise ValueError(f"expected a value without blanks, found {text!r}")
    return text


class Optics(Protocol):
    """The optics of a microscope, such as `crefjax.simulate.imaging.CtfParameters`: kV, mm, and a fraction."""

    voltage: float
    spherical_aberration: float
    amplitude_contrast: float


def optics_table(optics: Optics, pixel_size: float, side: int) -> dict[str, list]:
    """Return the block `optics` of images of one optics group, by labels.

    Args:
        optics: of the microscope.
        pixel_size: Å.
        side: of the images, pixels.
    """
    return {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnVoltage": [float(optics.voltage)],
        "rlnSphericalAberration": [float(optics.spherical_aberration)],
        "rlnAmplitudeContrast": [float(optics.amplitude_contrast)],
        "rlnMicrographOriginalPixelSize": [float(pixel_size)],
        "rlnImagePixelSize": [float(pixel_size)],
        "rlnImageSize": [int(side)],
        "rlnImageDimensionality": [2],
    }


def euler_angles(rotations: np.ndarray) -> np.ndarray:
    """Return RELION's angles of rotations.

    RELION's matrix of (rot, tilt, psi) turns a density into the frame of its image, `Rz(-psi) Ry(-tilt) Rz(-rot)` with
    right-handed rotations of column vectors (x, y, z); Heymann, Chagoyen & Belnap 2005, J. Struct. Biol. 151, 196.

    Args:
        rotations: `(count, 3, 3)`, acting on `(z, y, x)`; as a map's axes are.

    Returns:
        `(count, 3)`: rot, tilt, and psi in degrees, -180 to 180, 0 to 180, -180 to 180.
    """
    matrix = np.asarray(rotations, np.float64)[:, ::-1, ::-1]
    sine = np.hypot(matrix[:, 2, 0], matrix[:, 2, 1])
    tilt = np.arctan2(sine, matrix[:, 2, 2])
    # Seen along the axis only the sum, or the difference, of the other two is defined; psi takes all of it.
    along = sine < 1e-6
    rot = np.where(along, 0, np.arctan2(matrix[:, 2, 1], matrix[:, 2, 0]))
    psi_along = np.arctan2(-matrix[:, 1, 0] * np.sign(matrix[:, 2, 2]), matrix[:, 1, 1])
    psi = np.where(along, psi_along, np.arctan2(matrix[:, 1, 2], -matrix[:, 0, 2]))
    return np.rad2deg(np.stack([rot, tilt, psi], -1))
