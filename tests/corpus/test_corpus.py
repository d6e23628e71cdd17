"""Two hundred and more broken and odd inputs, each through the commands that read it.

A part of all pairs of case and command is run by default, all of them by `pytest tests/corpus --full`.
"""

import pytest
from corpus_commands import Bench
from corpus_files import file_cases
from corpus_headers import header_cases
from corpus_masks import mask_cases
from corpus_material import Orderly, Refused
from corpus_options import option_cases, output_cases
from corpus_pairs import pair_cases
from corpus_voxels import voxel_cases
from not_yet import NOT_YET, today

CASES = [
    case
    for cases in (file_cases, header_cases, voxel_cases, pair_cases, mask_cases, output_cases, option_cases)
    for case in cases()
]
FEWEST = 200
CHEAP = ("check", "fsc", "mask", "prepare")  # for other boxes nothing is compiled


def chosen(full):
    """All pairs of case and command, or a part that has every case once, and commands in turn."""
    pairs = []
    for number, case in enumerate(CASES):
        commands = case.commands
        if not full:
            if not isinstance(case.expected, Refused):
                commands = [command for command in commands if command != "simulate"]
            if isinstance(case.expected, Orderly):
                commands = [command for command in commands if command in CHEAP] or commands
            commands = commands[number % len(commands) :][:1] if commands else ()
        pairs += [(case, command) for command in commands]
    return pairs


def pytest_generate_tests(metafunc):
    if "command" not in metafunc.fixturenames:
        return
    parameters = []
    for case, command in chosen(metafunc.config.getoption("--full", default=False)):
        name = f"{case.name}, {command}"
        reason = today(case, command)
        marks = [pytest.mark.xfail(reason=reason, strict=True, run="waits" not in reason)] if reason else []
        parameters.append(pytest.param(case, command, id=name, marks=marks))
    metafunc.parametrize(("case", "command"), parameters)


@pytest.fixture(scope="session")
def bench(tmp_path_factory, weights, classifier):
    return Bench(tmp_path_factory.mktemp("sound"), weights, classifier)


def test_inputs_are_many_and_told_apart():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= FEWEST
    known = {case.name: case.commands for case in CASES}
    assert all(set(commands) <= set(known.get(name, ())) for name, (_, commands) in NOT_YET.items())


def test_what_must_happen_does(case, command, bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bench.check(case, command, tmp_path)
