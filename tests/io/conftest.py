import re

import pytest

from crefjax.errors import UserError


@pytest.fixture
def refused():
    """Return a function that checks for a UserError of one line with the given names, and returns the message."""

    def call(function, *args, names, match="", **kwargs):
        with pytest.raises(UserError) as caught:
            function(*args, **kwargs)
        message = str(caught.value)
        assert "\n" not in message
        for name in [names] if isinstance(names, str) else names:
            assert name in message
        assert re.search(match, message), message
        return message

    return call


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a file of the given bytes and returns its path."""

    def make(content: bytes, name="map.mrc"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return make
