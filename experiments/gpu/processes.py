"""Runs a command with a limit of time; what it says goes to a log."""

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


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
        status: `DONE`, `FAILED`, or `LATE` if it was stopped.
        seconds: that it took.
        said: the line of its output that tells most: its error, or its last.
    """

    status: str
    seconds: float
    said: str


def run_process(
    command: Sequence[str],
    *,
    seconds: float,
    log: Path,
    environment: Mapping[str, str],
    grace: float = 2.0,
    tick: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run a command in the root of the repository.

    Args:
        command: to run.
        seconds: after which it is asked to end.
        log: file that its output is appended to.
        environment: of the process, whole.
        grace: seconds between asking it and killing it, with all that it started.
        tick: called a few times a second meanwhile.
        stopped: whether to ask it to end now.
    """
    start = time.monotonic()
    with open(log, "ab") as stream:
        stream.write(f"\n== {' '.join(map(str, command))}\n".encode())
        stream.flush()
        begin = stream.tell()
        # A group of its own, in which those that it starts are ended too.
        process = subprocess.Popen(
            list(map(str, command)), stdout=stream, stderr=stream, env=dict(environment), cwd=ROOT, process_group=0
        )
        try:
            late = _wait(process, start + seconds, grace, tick, stopped)
        finally:
            _kill_group(process)
            process.wait()
    status = LATE if late else FAILED if process.returncode else DONE
    said = telling_line(_since(log, begin), failed=status == FAILED)
    if log.stat().st_size > _LONGEST_LOG:
        log.write_bytes(log.read_bytes()[-_LONGEST_LOG // 2 :])
    return Ended(status, time.monotonic() - start, said)


def _wait(process, until, grace, tick, stopped):
    """Until it ends; whether it was asked to."""
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


def telling_line(text: str, *, failed: bool) -> str:
    """The last line, or, after a failure, the last one that names an error; shortened."""
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
