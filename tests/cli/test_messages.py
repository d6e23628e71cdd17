"""What a command says: `--quiet`, `--verbose`, and where the lines go."""

import re

import pytest
from helpers.cli import densities, run_crefjax, run_ok, write

from crefjax.cli.main import COMMANDS, make_parser
from crefjax.cli.messages import QUIET, VERBOSE, current_messages, detail, log, part, result, speak, timed, warn
from crefjax.utils.progress import progress_bar


def test_quiet_leaves_warnings(capsys):
    with speak(QUIET) as messages:
        log("a line")
        detail("a detail")
        result("a result")
        warn("a doubt")
        log("warning: of the library")
        log("skipped an entry: a reason")
        result("a finding", even_if_quiet=True)
        with progress_bar("work") as show:
            show(0.5)
    assert messages.warnings == ["a doubt", "of the library", "skipped an entry: a reason"]
    out, err = capsys.readouterr()
    assert out == "a finding\n"
    assert err == "warning: a doubt\nwarning: of the library\nskipped an entry: a reason\n"


def test_details_and_times_are_printed_if_verbose(capsys):
    with speak(VERBOSE):
        detail("scale: signal")
        with timed("reading"):
            pass
        assert set(current_messages().seconds) == {"reading"}
    log("after")
    assert re.fullmatch(r"scale: signal\nreading: 0\.\d\d s\nafter\n", capsys.readouterr().err)
    with speak():
        detail("scale: signal")
    assert capsys.readouterr().err == ""


def test_a_part_has_its_name_before_every_line_and_warnings_of_its_own(capsys):
    with speak(json_on_stdout=True) as whole:
        with part("7yc8") as messages:
            warn("filtered")
            result("a result")
        log("done")
    assert (messages.warnings, whole.warnings) == (["filtered"], [])
    assert capsys.readouterr() == ("", "7yc8: warning: filtered\na result\ndone\n")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("weights", "cache", "completion")])
def test_every_command_that_works_can_be_quiet_or_verbose(name):
    (commands,) = make_parser(name)._subparsers._group_actions
    command = commands.choices[name]
    actions = [sub for group in command._actions if isinstance(group.choices, dict) for sub in group.choices.values()]
    for parser in actions or [command]:
        assert {"-q", "--quiet", "-v", "--verbose"} <= set(parser._option_string_actions)


def test_quiet_and_verbose_exclude_each_other(pair):
    outcome = run_crefjax("mask", *pair, "-o", "m.mrc", "-q", "-v")
    assert outcome.status == 2
    assert "not allowed with" in outcome.err


@pytest.mark.parametrize(
    ("words", "choice"),
    [
        (["mask", "-o", "mask.mrc"], "FSC of the half-maps"),
        (["fsc"], "measuring:"),
        (["check"], "total:"),
        (["denoise", "-o", "out.mrc"], "scale: signal"),
    ],
)
def test_commands_are_silent_if_quiet_and_tell_times_if_verbose(words, choice, pair, weights, workdir):
    """These half-maps have no problem to warn of."""
    more = ["--weights", weights] if words[0] == "denoise" else []
    words = [words[0], *pair, *words[1:], *more]
    outcome = run_ok(*words, "-q")
    assert outcome.text == ""
    for name in ("mask.mrc", "out.mrc"):
        (workdir / name).unlink(missing_ok=True)
    verbose = run_ok(*words, "-v").err
    assert choice in verbose
    assert re.search(r"^total: \d+\.\d\d s, peak memory \d+\.\d\d GiB$", verbose, re.M)


def test_quiet_check_prints_its_findings(pair, workdir):
    loud = write(workdir / "loud.mrc", 10 * densities()[1])
    outcome = run_ok("check", pair[0], loud, "-q")
    assert outcome.err == ""
    assert all(line.startswith("note: ") for line in outcome.out.splitlines())
    assert "scale" in outcome.out


def test_errors_are_printed_if_quiet(pair):
    outcome = run_crefjax("mask", pair[0], "none.mrc", "-o", "m.mrc", "-q")
    assert outcome.status == 2
    assert outcome.err.startswith("crefjax: none.mrc: ")
