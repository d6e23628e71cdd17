"""`experiments` is no part of the installed package, and this folder has its name: the project's root goes first."""

import sys
from pathlib import Path

import pytest
from quick_compiling import quick_compiling

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.append(str(Path(__file__).parents[1] / "training"))  # where a tiny run is made


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """The environment of processes that shall be as quick."""
    with quick_compiling(tmp_path_factory.mktemp("compiled")) as environment:
        yield environment
