"""The device to compute on, and its free memory."""

import os
from pathlib import Path

from crefjax.errors import UserError

GIB = 2**30
PROGRAM_BYTES = 0.45 * GIB  # resident memory before any map is read: Python, JAX, and its compiled code


def size_text(count: float) -> str:
    """Return a number of bytes in MiB or GiB."""
    return f"{count / GIB:.3g} GiB" if count >= 0.1 * GIB else f"{count / 2**20:.3g} MiB"


def find_device(kind: str | None = None):
    """Return the JAX device to compute on.

    Args:
        kind: `cpu`, `gpu`, or None for the best one.

    Raises:
        UserError: JAX has no such device.
    """
    import jax

    try:
        return jax.devices(kind)[0]
    except RuntimeError as error:
        raise UserError(
            f"`device` {kind}: JAX finds no such device; for an NVIDIA GPU: pip install 'crefjax[cuda]', "
            "or choose `device` cpu"
        ) from error


def free_memory(device) -> float:
    """Return the bytes that this program may still allocate on a JAX device.

    On a CPU the memory that the program holds already counts as free; see `free_host_memory`.
    """
    stats = {} if device.platform == "cpu" else device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return free_host_memory()
    return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))


def free_host_memory() -> float:
    """Return the bytes of main memory that this program may use, including those that it already holds."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
        return min(1024.0 * int(kib), _free_in_container()) + _resident()
    except (OSError, StopIteration):  # not Linux
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _free_in_container():
    """Return the bytes left of the limit of a container or batch job (cgroup version 2): `MemAvailable` ignores it."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if limit == "max" else float(int(limit) - used)


def _resident():
    """Return the bytes that this program holds, among them the maps it has read, which a memory plan counts too."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
