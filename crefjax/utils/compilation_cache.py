"""Compiled programs, kept on disk between processes, so that a command compiles only in its first run.

JAX keeps them itself, in the folder that the environment names before it is loaded; here the folder is chosen,
checked, and bounded. A compiled program is machine code for the features of one CPU, so every kind of CPU, and every
version of JAX, has a folder of its own. It is also code that will be run, so the folder is the user's alone.

The variable `CREFJAX_CACHE` names another folder, or is `off`. A folder that the user chose for JAX, by
`JAX_COMPILATION_CACHE_DIR`, is left as it is. This module does not import JAX.
"""

import hashlib
import os
import platform
import shutil
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

VARIABLE = "CREFJAX_CACHE"
LIMIT = 256 * 2**20  # bytes; a denoising adds less than 1 MiB
_OFF = ("off", "0", "no", "false")
_PREFIX = "jax-"  # of the folders, and nothing else is ever removed
_ZSTANDARD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class CacheState:
    """Where compiled programs are kept.

    Attributes:
        folder: of all of them, whether it exists or not; None if the cache is off.
        reason: why the cache is off; empty if it is not.
        own: folder of this version of JAX and this CPU.
    """

    folder: Path | None
    reason: str = ""
    own: Path | None = None


def cache_state() -> CacheState:
    """Return where compiled programs are kept; nothing is written."""
    value = os.environ.get(VARIABLE, "")
    if value.lower() in _OFF:
        return CacheState(None, f"{VARIABLE} is {value}")
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return CacheState(None, f"JAX_COMPILATION_CACHE_DIR is {chosen}, where JAX keeps them without a limit")
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home
        return CacheState(None, "there is no home folder")
    folder = Path(value) if value else caches / "crefjax"
    return CacheState(folder.absolute(), own=folder.absolute() / _own_name())


def keep_programs() -> CacheState:
    """Tell JAX, which must not be loaded yet, where to keep compiled programs, and tidy the folder.

    Nothing happens if it is loaded, and the cache is off if its folder cannot be written.
    """
    state = cache_state()
    if state.folder is None or "jax" in sys.modules:
        return state
    try:
        state.own.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(state.own, os.W_OK) or state.own.stat().st_uid != os.getuid():
            return CacheState(None, f"{state.own} is not the user's, or cannot be written")
        _remove_damaged(state.own)
        bound_cache(state.folder)
    except OSError as error:
        return CacheState(None, f"{state.own}: {error.strerror or error}")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(state.own)
    # By default JAX keeps what takes a second to compile; here many small programs take seconds together.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # A program that cannot be read, or written, is compiled again; that is all that the warning says.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    return state


def measure_cache(folder: Path) -> tuple[int, int]:
    """Return the number of compiled programs under the folder of all, and the bytes of its files."""
    files = [(path.name, status.st_size) for path, status in _files(folder)]
    return sum(name.endswith("-cache") for name, _ in files), sum(size for _, size in files)


def clear_cache(folder: Path) -> tuple[int, int]:
    """Remove all compiled programs, and return how many and how many bytes they were.

    Raises:
        OSError: they cannot be removed.
    """
    removed = measure_cache(folder)
    for path in folder.glob(f"{_PREFIX}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    return removed


def bound_cache(folder: Path, limit: int = LIMIT) -> None:
    """Remove the programs that were not used for the longest time, until all files are within a limit in bytes."""
    files = sorted(_files(folder), key=lambda row: max(row[1].st_atime, row[1].st_mtime))
    excess = sum(status.st_size for _, status in files) - limit
    for path, status in files:
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= status.st_size


def _own_name():
    """Return the name of the folder for this version of JAX and the features of this CPU."""
    features = platform.machine() + platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        features += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{_PREFIX}{version('jaxlib')}-{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"


def _files(folder) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield all files of the cache; those that another process removes meanwhile are left out."""
    for path in folder.glob(f"{_PREFIX}*/**/*"):
        with suppress(OSError):
            if path.is_file():
                yield path, path.stat()


def _remove_damaged(own):
    """Remove programs that were written since the last check and are not whole.

    JAX compiles again what it cannot read, but never replaces it. A process that was killed, or a full disk, leaves
    such files; so does, for a moment, another process that is just writing one, which at worst is compiled again.
    """
    mark = own / ".checked"
    last = mark.stat().st_mtime if mark.exists() else 0.0
    new = [path for path in own.glob("*-cache") if path.stat().st_mtime >= last - 1]
    mark.touch(mode=0o600)
    for path in new:
        if not _is_whole(path.read_bytes()):
            path.unlink(missing_ok=True)


def _is_whole(data):
    """Return whether compressed data can be read to its end."""
    try:
        if data.startswith(_ZSTANDARD):
            import zstandard  # JAX wrote it with this package

            zstandard.ZstdDecompressor().decompress(data)
        else:
            zlib.decompress(data)
    except ImportError:
        return True
    except Exception:
        return False
    return True
