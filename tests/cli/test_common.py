"""Helpers that the commands share, and choices that are written in a command and in the library."""

import argparse

import pytest

from crefjax.cli import denoise
from crefjax.cli.messages import as_options, log
from crefjax.inference import GRIDS, ROTATION_COUNTS, SCALES


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


def test_choices_of_denoise_are_those_of_the_library():
    parser = argparse.ArgumentParser()
    denoise.add_arguments(parser)
    choices = {action.dest: action.choices for action in parser._actions if action.choices}
    assert choices == {"scale": SCALES, "grid": GRIDS, "rotations": ROTATION_COUNTS, "device": ("cpu", "gpu")}
