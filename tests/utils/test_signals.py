"""Signal handlers are restored; the first signal asks a run to stop, the second ends it; locks exclude each other."""

import os
import signal
import subprocess
import sys

import pytest

from crefjax.errors import UserError
from crefjax.utils.signals import exclusive_lock, handle_signals, stop_on_signals


def test_handlers_are_restored_and_ignored_signals_stay_ignored():
    received = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handler = signal.getsignal(signal.SIGTERM)
        with handle_signals(received.append):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGHUP, before)
    assert received == [signal.SIGTERM]


def test_first_signal_asks_to_stop_and_the_second_interrupts(capsys):
    with stop_on_signals() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGINT)
        assert stop
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert capsys.readouterr().err == "crefjax: SIGINT: ending this step and saving; once more to stop at once\n"


PROGRAM = """
import os, signal, sys
from pathlib import Path
from crefjax.utils.atomic import temporary_sibling
from crefjax.utils.signals import exit_on_signals
with exit_on_signals(), temporary_sibling(Path("out")) as hidden:
    hidden.write_text("")
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_signal_ends_a_program_and_removes_its_temporary_files(tmp_path):
    command = [sys.executable, "-c", PROGRAM]
    folders = os.pathsep.join(sys.path)
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": folders}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "crefjax: interrupted (SIGTERM); no unfinished file was left\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".lock"])
def test_lock_excludes_a_second_one_until_it_ends(tmp_path, name):
    refused = pytest.raises(UserError, match="in use")
    with exclusive_lock(tmp_path / name, "in use"), refused, exclusive_lock(tmp_path / name, "in use"):
        pass
    with exclusive_lock(tmp_path / name, "in use"):
        pass
