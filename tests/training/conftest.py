import pytest
from helpers.quick_compiling import quick_compiling


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """The environment of processes that shall be as quick."""
    with quick_compiling(tmp_path_factory.mktemp("compiled")) as environment:
        yield environment
