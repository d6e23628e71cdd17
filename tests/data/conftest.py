import pytest
from helpers.datasets import write_entry

from crefjax.data.prepare import prepare

SHAPES = ((20, 24, 36), (16, 33, 18), (28, 17, 21), (12, 20, 40))


@pytest.fixture(scope="session")
def entries(tmp_path_factory):
    """Four entry folders with truth, their boxes all different and one smaller than the patch."""
    folder = tmp_path_factory.mktemp("entries")
    return [write_entry(folder / f"e{n}", shape, seed=n, truth=True) for n, shape in enumerate(SHAPES)]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, entries):
    """A dataset of them: patches of 16 voxels every 12, one entry for validation."""
    folder = tmp_path_factory.mktemp("datasets") / "dataset"
    prepare(entries, folder, patch=16, stride=12, dtype="float32", validation=0.25, report=_no_report)
    return folder


def _no_report(line):
    raise AssertionError(f"nothing should be reported, found: {line}")
