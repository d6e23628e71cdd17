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
    assert capsys.readouterr().err == "crefjax: SIGINT: finishing this step and saving; send again to stop at once\n"


PROGRAM = """
import os, signal, sys
from pathlib import Path
from crefjax.utils.atomic import temporary_sibling
from crefjax.utils.signals import exit_on_signals
with exit_on_signals(), temporary_sibling(Path("out")) as hidden:
    hidden.write_text("")
    os.kill(os.getpid(), signal.SIGTERM)
"""


# One thread is within the call that makes its file or folder when the signal comes; two others begin after it.
THREADS = """
import os, pathlib, signal, threading, time
from crefjax.utils import atomic
from crefjax.utils.signals import exit_on_signals

def slow(function):
    def make(path, *more, **settings):
        if threading.current_thread() is not threading.main_thread():
            making.set()
            time.sleep(0.3)
        return function(path, *more, **settings)
    return make

def folder():
    with atomic.atomic_directory(pathlib.Path("folder")):
        time.sleep(60)

def file():
    with atomic.atomic_write(pathlib.Path("file"), needed=1, overwrite=True):
        time.sleep(60)

def later(work):
    time.sleep(0.1)
    work()

making, works = threading.Event(), [file, folder][::{order}]
os.open, pathlib.Path.mkdir = slow(os.open), slow(pathlib.Path.mkdir)
remove = atomic.remove_temporary
atomic.remove_temporary = lambda: (remove(), time.sleep(1))
with exit_on_signals():
    threading.Thread(target=works[0], daemon=True).start()
    making.wait()
    for work in works:
        threading.Thread(target=later, args=(work,), daemon=True).start()
    os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize("program", [PROGRAM, THREADS.format(order=1), THREADS.format(order=-1)])
def test_signal_ends_a_program_and_leaves_no_temporary_file(tmp_path, program):
    command = [sys.executable, "-c", program]
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


def test_lock_ends_although_a_copy_of_its_descriptor_is_open(tmp_path, monkeypatch):
    """As in a child process that was forked by another thread while the lock was held."""
    copies, real = [], os.open

    def copied(*arguments):
        descriptor = real(*arguments)
        copies.append(os.dup(descriptor))
        return descriptor

    monkeypatch.setattr(os, "open", copied)
    try:
        with exclusive_lock(tmp_path, "in use"):
            pass
        with (
            exclusive_lock(tmp_path, "in use"),
            pytest.raises(UserError, match="in use"),
            exclusive_lock(tmp_path, "in use"),
        ):
            pass
    finally:
        for descriptor in copies:
            os.close(descriptor)
