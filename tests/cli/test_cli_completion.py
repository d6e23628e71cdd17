"""The completion of `crefjax completion` in the shells themselves."""

import shutil
import subprocess
import sys

import pytest
from helpers.cli import run_crefjax, run_ok

from crefjax.cli.main import COMMANDS, make_parser

pytest.importorskip("shtab")

# Completes a command line as bash does when the tab key is pressed at its end, and prints a line for each candidate.
IN_BASH = r"""
source ./crefjax.bash
complete -p crefjax >/dev/null || exit 3
function=$(complete -p crefjax | sed 's/.*-F \([^ ]*\).*/\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
COMPREPLY=()
$function crefjax "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


def available(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"needs {shell}, which is not installed")


@pytest.fixture
def script(workdir):
    """Return a function that writes the script for a shell."""

    def write(shell):
        path = workdir / f"crefjax.{shell}"
        path.write_text(run_ok("completion", shell).out)
        return path

    return write


@pytest.mark.parametrize("shell", [pytest.param(shell, marks=available(shell)) for shell in ("bash", "zsh", "fish")])
def test_script_is_accepted_by_its_shell(shell, script):
    checked = subprocess.run([shell, "-n", script(shell)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_names_every_command_and_no_shell_substitution(shell, script):
    text = script(shell).read_text()
    for name in COMMANDS:
        assert name in text
    own = [action.help for action in make_parser("denoise")._actions]
    assert not any(help_ in text for help_ in own if help_ and "`" in help_)


@available("bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["den"], {"denoise"}),
        (["f"], {"fsc", "fetch", "finetune"}),
        (["denoise", "--entr"], {"--entries"}),
        (["fsc", "a.mrc", "b.mrc", "--x"], {"--xml"}),
        (["denoise", "--scale", ""], {"signal", "input", "none"}),
        (["weights", "sh"], {"show"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["denoise", "half_"], {"half_1.mrc", "half_2.mrc"}),
        (["denoise", "half_1.mrc", "--report", "fo"], {"folder"}),
    ],
)
def test_bash_completes(words, expected, script, workdir):
    script("bash")
    for name in ("half_1.mrc", "half_2.mrc", "fox.mrc"):
        (workdir / name).touch()
    (workdir / "folder").mkdir()
    done = subprocess.run(["bash", "-c", IN_BASH, "bash", "crefjax", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {line.strip().rstrip("/") for line in done.stdout.splitlines()} == expected


@available("fish")
@pytest.mark.parametrize(("line", "expected"), [("crefjax den", "denoise"), ("crefjax fsc --cor", "--corrected")])
def test_fish_completes(line, expected, script):
    command = f"source {script('fish')}; complete -C '{line}'"
    done = subprocess.run(["fish", "--no-config", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [candidate.split("\t")[0] for candidate in done.stdout.splitlines()] == [expected]


def test_another_shell_is_refused(workdir):
    outcome = run_crefjax("completion", "csh")
    assert outcome.status == 2
    assert "bash" in outcome.err


def test_missing_library_is_reported(monkeypatch, workdir):
    monkeypatch.setitem(sys.modules, "shtab", None)
    outcome = run_crefjax("completion", "bash")
    assert (outcome.status, outcome.out) == (2, "")
    assert "pip install 'crefjax[completion]'" in outcome.err
