"""What holds for every test: two fake CPU devices, and no rank promotion without being told."""

import os
import signal
from pathlib import Path

import pytest

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["CREFJAX_ENGINE"] = "jax"  # also where another is installed; its own tests ask for it
os.environ["CREFJAX_CACHE"] = "off"  # the user's own; tests of the cache name another folder

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background so, and every process that a test starts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the whole corpus, a long fuzz, and large datasets")


SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared():
    """The folder of real maps, models and reference vectors; a clone of the project alone does not have it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the data folder {SHARED.name}/ beside the project, which is not there")
    return SHARED
