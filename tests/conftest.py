"""What holds for every test: two fake CPU devices, no rank promotion without being told, programs compiled once."""

import contextlib
import ctypes
import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["CREFJAX_ENGINE"] = "jax"  # also where another is installed; its own tests ask for it
os.environ["CREFJAX_CACHE"] = "off"  # the user's own; tests of the cache name another folder

# The workers of pytest share the cores already; threads of NumPy's matrix products would wait for each other, spinning.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Most of the time would be compiling: it is done with few optimizations, and what one process has compiled is read by
# all others, the workers of pytest and those that tests start. The first of them makes the folder, and removes it.
COMPILED = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="crefjax-compiled-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# A process that a test kills leaves half a program in the folder, which others compile again and would warn about.
os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent,ignore:Error writing persistent"

MOST_MEMORY = 5 * 2**29  # bytes of a worker before it drops what it has compiled

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background so, and every process that a test starts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the whole corpus, a long fuzz, and large datasets")


def pytest_collection_modifyitems(items):
    """Put files with slow tests first, so that in the end no process is left alone with one of them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_unconfigure():
    if COMPILED is not None:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory():
    """Drop compiled programs after a module when they fill the memory; what is needed again is read from the disk."""
    yield
    statm = Path("/proc/self/statm")
    if "jax" in sys.modules and statm.exists():
        resident = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if resident > MOST_MEMORY:
            sys.modules["jax"].clear_caches()
            gc.collect()
            with contextlib.suppress(AttributeError):  # of the GNU library alone
                ctypes.CDLL(None).malloc_trim(0)


SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared():
    """The folder of real maps, models and reference vectors; a clone of the project alone does not have it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the data folder {SHARED.name}/ beside the project, which is not there")
    return SHARED
