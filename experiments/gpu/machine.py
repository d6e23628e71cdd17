"""Prints what it runs on, as JSON: the device, its memory, and the versions of what matters.

python -m experiments.gpu.machine
"""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def machine() -> dict:
    """The device and the versions, in the order in which they are told."""
    import jax

    device = jax.devices()[0]
    found = {"device": device.device_kind, "platform": device.platform, "devices": jax.device_count()}
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        found["memory_gib"] = round(stats["bytes_limit"] / 2**30, 1)
    found |= {"cores": os.cpu_count(), "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


if __name__ == "__main__":
    print(json.dumps(machine()))
