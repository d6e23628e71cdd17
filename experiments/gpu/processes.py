"""Run a command with a time limit, with its output in a log."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DONE, FAILED, LATE = "done", "failed", "time is up"
_LONGEST_ERROR = 300  # characters
_LONGEST_LOG = 4 * 2**20  # bytes, of which the last half is kept


class Outcome(NamedTuple):
    """The outcome of a process.

    Attributes:
        status: `DONE`, `FAILED`, or `LATE` if it was stopped.
        seconds: Duration.
        message: The error, or the last line of the output.
    """

    status: str
    seconds: float
    message: str


def run_process(
    command: Sequence[str],
    *,
    seconds: float,
    log: Path,
    environment: Mapping[str, str],
    grace: float = 2.0,
    tick: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run a command in the root of the repository.

    Args:
        command: Program and arguments.
        seconds: Time after which the process receives SIGTERM.
        log: File that the output is appended to.
        environment: Complete environment of the process.
        grace: Seconds between SIGTERM and SIGKILL, which also ends the processes that it started.
        tick: Called a few times a second while the process runs.
        stopped: Returns whether to end the process now.
    """
    start = time.monotonic()
    with open(log, "ab") as stream:
        stream.write(f"\n== {' '.join(map(str, command))}\n".encode())
        stream.flush()
        begin = stream.tell()
        # In a process group of its own, so that the processes that it starts are ended too.
        process = subprocess.Popen(
            list(map(str, command)), stdout=stream, stderr=stream, env=dict(environment), cwd=ROOT, process_group=0
        )
        try:
            late = _wait(process, start + seconds, grace, tick, stopped)
        finally:
            _kill_group(process)
            process.wait()
    status = LATE if late else FAILED if process.returncode else DONE
    message = last_message(_since(log, begin), failed=status == FAILED)
    if log.stat().st_size > _LONGEST_LOG:
        log.write_bytes(log.read_bytes()[-_LONGEST_LOG // 2 :])
    return Outcome(status, time.monotonic() - start, message)


def _wait(process, until, grace, tick, stopped):
    """Wait for the end of a process; return whether it was asked to end."""
    asked = None
    while process.poll() is None:
        now = time.monotonic()
        if asked is None and (now >= until or stopped()):
            asked = now
            process.terminate()
        elif asked is not None and now - asked >= grace:
            _kill_group(process)
        tick()
        time.sleep(0.1)
    return asked is not None


def last_message(text: str, *, failed: bool) -> str:
    """Return the last line, or, after a failure, the last line that names an error; shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = failed and [line for line in lines if re.match(r"(E +)?[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (errors or lines or [""])[-1][:_LONGEST_ERROR]


def _since(log, begin):
    with open(log, "rb") as stream:
        stream.seek(begin)
        return stream.read().decode(errors="replace")


def _kill_group(process):
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
