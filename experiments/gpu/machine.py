"""Print the device, its memory, and the versions of packages, as JSON.

python -m experiments.gpu.machine
"""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def machine() -> dict:
    """Return the device, its memory, and the versions of packages."""
    import jax

    device = jax.devices()[0]
    description = {"device": device.device_kind, "platform": device.platform, "devices": jax.device_count()}
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        description["memory_gib"] = round(stats["bytes_limit"] / 2**30, 1)
    description |= {"cores": os.cpu_count(), "python": platform.python_version()}
    for name in PACKAGES:
        try:
            description[name] = version(name)
        except PackageNotFoundError:
            description[name] = "none"
    return description


if __name__ == "__main__":
    print(json.dumps(machine()))
