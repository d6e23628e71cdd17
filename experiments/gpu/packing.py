"""What continues a run, in few files of bounded size."""

import io
import tarfile
from pathlib import Path

from analysis.files import put
from crefjax.errors import UserError
from crefjax.utils.atomic import atomic_write

LARGEST = 15 * 2**20  # bytes of a file
MOST_PIECES = 4
ARCHIVE, METRICS = "run.tar.gz", "metrics.jsonl"
BEFORE = "before.json"  # the metrics of what a run starts from
_FILES = ("config.json", METRICS, BEFORE, "convergence.png", "best", "last")


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """The folder of the last step that there is a whole checkpoint of; None without any."""
    steps = [one for one in checkpoints.glob("*") if one.is_dir() and one.name.isdigit()]
    return max(steps, key=lambda one: int(one.name), default=None)


def pack(run: Path, folder: Path, *, largest: int = LARGEST) -> list[Path]:
    """Write a run's newest checkpoint, config, metrics and weights into a folder, each file whole or not at all.

    `cat FOLDER/run.tar.gz* | tar xz -C RUN` makes a run of it that goes on.

    Args:
        run: folder of a run.
        folder: to write.
        largest: bytes of a file, above which the archive is cut in pieces.

    Returns:
        the files of the archive; none if the run has no checkpoint yet.

    Raises:
        UserError: they would be more than `MOST_PIECES`, or the disk refused.
        OSError: a file disappeared meanwhile, because the run goes on.
    """
    checkpoint = newest_checkpoint(run / "checkpoints")
    if checkpoint is None:
        return []
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for one in [checkpoint, *(run / name for name in _FILES)]:
            if one.exists():
                archive.add(one, str(one.relative_to(run)))
    content = stream.getvalue()
    pieces = [content[start : start + largest] for start in range(0, len(content), largest)]
    if len(pieces) > MOST_PIECES:
        raise UserError(f"{run}: expected at most {MOST_PIECES} files of {largest} bytes, found {len(content)} bytes")
    names = [f"{ARCHIVE}.{number:02d}" for number in range(len(pieces))] if len(pieces) > 1 else [ARCHIVE]
    for name, piece in zip(names, pieces, strict=True):
        with atomic_write(folder / name, needed=len(piece), overwrite=True, compress=False) as file:
            file.write(piece)
    for left in {*folder.glob(f"{ARCHIVE}*")} - {folder / name for name in names}:
        left.unlink()
    if (run / METRICS).exists():
        put(folder / METRICS, (run / METRICS).read_bytes()[-largest:])
    return [folder / name for name in names]


class Packer:
    """Packs a run whenever it has a new checkpoint.

    Args:
        run: folder of a run.
        folder: to write.
    """

    def __init__(self, run: Path, folder: Path):
        self._run, self._folder, self._packed = run, folder, None

    def __call__(self) -> None:
        """Pack if there is a new checkpoint; what cannot be packed now is tried again at the next call."""
        newest = newest_checkpoint(self._run / "checkpoints")
        if newest is None or newest.name == self._packed:
            return
        try:
            pack(self._run, self._folder)
        except OSError:  # the run replaced a file just now
            return
        except UserError as error:  # the training must go on
            print(f"packing: {error}", flush=True)
        self._packed = newest.name

    def last(self) -> None:
        """Pack what there is, at the end of the run."""
        self._packed = None
        self()
