"""Reading and writing of simulated sets of images; `crefjax.images.simulate` describes their files."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from crefjax import __version__
from crefjax.errors import path_error
from crefjax.io.files import check_output_folder
from crefjax.io.maps import Map, read_map, write_map
from crefjax.io.stacks import ImageStack, write_stack
from crefjax.io.star import find_block, find_column, find_numbers, optics_table, read_star, write_star
from crefjax.utils.atomic import atomic_directory, write_json

if TYPE_CHECKING:
    from crefjax.images.simulate import ImageConfig, SimulatedImage

RECORD, VERSION = "set.json", 1
NOISY, EVEN, ODD, CLEAN, BACKGROUND = (f"{name}.mrcs" for name in ("images", "even", "odd", "clean", "background"))
TRUTH, IMAGES, PARTICLES = "truth.mrc", "images.star", "particles.star"


def check_set_folder(folder: Path, *, overwrite: bool, inputs: Iterable[Path | str] = ()) -> None:
    """Check, before long work, that a set can be written; see `check_output_folder`."""
    check_output_folder(folder, "a set of images", RECORD, overwrite=overwrite, inputs=tuple(inputs))


def write_set(
    folder: Path | str,
    images: Iterable["SimulatedImage"],
    config: "ImageConfig",
    *,
    specimen: str,
    diameter: float,
    truth: np.ndarray | None,
    overwrite: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> dict:
    """Write simulated images one by one; the folder appears complete or not at all.

    Args:
        folder: to write.
        images: `config.count` of them.
        config: parameters with which they were simulated.
        specimen: name of the specimen.
        diameter: of the particle, Å.
        truth: `(z, y, x)`, its density with the envelope; None in empty sets.
        overwrite: whether an existing set may be replaced.
        progress: called with the completed share of the work, 0 to 1.

    Returns:
        the content of `set.json`.

    Raises:
        UserError: the folder may not be replaced, or the file system refused.
    """
    folder = Path(folder)
    check_set_folder(folder, overwrite=overwrite)
    names = [NOISY, EVEN, ODD, CLEAN, *([BACKGROUND] if config.micrographs else [])]
    power = np.zeros(3)  # of the signal, of the shot noise in the whole exposure, of all that is not signal
    rows, particles = [], []
    with atomic_directory(folder) as new:
        with ExitStack() as stack:
            append: dict = {}
            for number, image in enumerate(images, start=1):
                arrays = dict(zip(names, (image.noisy, image.even, image.odd, image.clean), strict=False))
                if image.background is not None:
                    arrays[BACKGROUND] = image.background
                for name, array in arrays.items():
                    if name not in append:
                        writer = write_stack(new / name, config.count, array.shape, config.pixel_size)
                        append[name] = stack.enter_context(writer)
                    append[name](array)
                name = f"{number:06d}@{NOISY}"
                rows.append({("rlnMicrographName" if config.micrographs else "rlnImageName"): name} | image.row)
                particles += [{"rlnMicrographName": name} | row for row in image.particles]
                expected = image.clean if image.background is None else image.clean + image.background
                power += [_power(image.clean), _power((image.even - image.odd) / 2), _power(image.noisy - expected)]
                progress(number / config.count)
        record = _record(config, specimen, diameter, image.clean.shape, power / config.count, len(particles))
        _write_star(new / IMAGES, rows, "micrographs" if config.micrographs else "particles", config, record)
        if config.micrographs and particles:
            _write_star(new / PARTICLES, particles, "particles", config, record)
        if truth is not None:
            write_map(new / TRUTH, Map.from_array(truth, config.pixel_size), label=f"crefjax {__version__} simulation")
        write_json(new / RECORD, record)
    return record


def _power(array):
    return float(np.mean(np.square(array - array.mean(), dtype=np.float64)))


def _record(config, specimen, diameter, shape, power, particles):
    return {
        "format_version": VERSION,
        "crefjax": __version__,
        "specimen": specimen,
        "diameter": diameter,
        "contrast": "dark" if config.micrographs else "bright",
        "shape": list(shape),
        "particles": particles if config.micrographs else config.count * (not config.empty),
        "electrons_per_pixel": config.electrons,
        "signal_variance": power[0],
        "shot_noise_variance": power[1],
        "signal_to_noise": power[0] / power[2],
        "parameters": {
            **{name: value for name, value in dataclasses.asdict(config).items() if name != "ctf"},
            "ctf": config.ctf._asdict(),
        },
    }


def _write_star(path, rows, block, config, record):
    optics = optics_table(config.ctf, config.pixel_size, record["shape"][0])
    columns = {label: [row[label] for row in rows] for label in rows[0]}
    write_star(path, {"optics": optics, block: columns | {"rlnOpticsGroup": [1] * len(rows)}})


class ImageSet:
    """A simulated set on disk; use it in a `with`, or close it.

    Attributes:
        path: its folder.
        record: the content of `set.json`.
        count: number of images.
        shape: `(y, x)`, pixels.
        pixel_size: Å.
        sign: 1 where particles are bright, -1 where they are dark.
    """

    def __init__(self, folder: Path | str):
        """Open a set.

        Raises:
            UserError: a file is missing, damaged, or of another version.
        """
        self.path = Path(folder)
        try:
            self.record = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
            version, self.sign = self.record["format_version"], {"bright": 1, "dark": -1}[self.record["contrast"]]
            self.pixel_size = float(self.record["parameters"]["pixel_size"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = f"expected a set of images with a {RECORD}, cannot be read; simulate one with crefjax images"
            raise path_error(self.path, text) from error
        if version != VERSION:
            raise path_error(self.path / RECORD, f"expected format version {VERSION}, found {version}; simulate again")
        names = [name for name in (NOISY, EVEN, ODD, CLEAN, BACKGROUND) if (self.path / name).exists()]
        self._stacks = {name: ImageStack(self.path / name) for name in dict.fromkeys([NOISY, EVEN, ODD, CLEAN, *names])}
        self.count, self.shape = self._stacks[NOISY].count, self._stacks[NOISY].shape
        for name, stack in self._stacks.items():
            if (stack.count, stack.shape) != (self.count, self.shape):
                found = f"found {stack.count} of {stack.shape}"
                raise path_error(
                    self.path / name, f"expected {self.count} images of {self.shape}, {found}; simulate again"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for stack in self._stacks.values():
            stack.close()

    def stack(self, name: str) -> ImageStack:
        """Return one of the stacks by the name of its file, such as `NOISY`."""
        return self._stacks[name]

    def truth(self) -> Map | None:
        """Return the density of the particle; None in an empty set."""
        path = self.path / TRUTH
        return read_map(path) if path.exists() else None

    def particles_of(self, micrograph: int) -> np.ndarray:
        """Return the places of the particles in a micrograph, by its number from 0: `(n, 2)`, `(y, x)`, pixels."""
        path = self.path / PARTICLES
        if not path.exists():
            return np.zeros((0, 2))
        block = find_block(read_star(path), "particles", path)
        names = find_column(block, "rlnMicrographName", path)
        places = np.stack([find_numbers(block, f"rlnCoordinate{axis}", path) for axis in "YX"], -1)
        return places[[int(name.split("@")[0]) == micrograph + 1 for name in names]]
