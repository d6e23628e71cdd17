"""Helpers that the commands share."""

import pytest

from crefjax.cli.common import as_options, log


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("give more `max_memory`", "give more --max-memory"),
        ("`scale` signal: expected two half-maps", "--scale signal: expected two half-maps"),
        ("see `crefjax check`, or choose `truth`", "see `crefjax check`, or choose `truth`"),
    ],
)
def test_parameters_in_messages_are_shown_as_options(message, line, capsys):
    assert as_options(message) == line
    log(message)
    assert capsys.readouterr() == ("", line + "\n")
