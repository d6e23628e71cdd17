"""Worker processes that never outlive this process, however it ends.

Not `concurrent.futures`: its workers outlive a parent that is killed, and its semaphores are reported as leaked when a
signal ends the parent. Here each worker has one pipe, and ends with it.
"""

import itertools
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from typing import TypeVar

from crefjax.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerKilledError(Exception):
    """A worker process ended during a task: it was killed, most often because memory ran out."""


def run_tasks(function: Callable[[Task], Result], tasks: Iterable[Task], *, jobs: int) -> Iterator[tuple[Task, Result]]:
    """Call a function on every task, in this process or in others, and yield tasks and results as they are completed.

    Args:
        function: top-level function of a module, so that other processes find it.
        tasks: its arguments; taken when a worker is free.
        jobs: number of processes; 1 for this one.

    Raises:
        WorkerKilledError: a worker ended during a task.
        Exception: the one that `function` raised; the other workers are ended.
    """
    if jobs == 1:
        for task in tasks:
            yield task, function(task)
    else:
        yield from _run_in_processes(function, iter(tasks), jobs)


def _run_in_processes(function, tasks, jobs):
    context = multiprocessing.get_context("spawn")  # forking a process that has threads may hang
    workers, assigned = {}, {}
    try:
        for task in itertools.islice(tasks, jobs):
            _assign(_start(context, function, workers), task, assigned)
        while assigned:
            for connection in wait(list(assigned)):
                task = assigned.pop(connection)
                try:
                    failed, result = connection.recv()
                except (EOFError, ConnectionError) as error:
                    raise WorkerKilledError from error
                if failed:
                    raise result
                for following in itertools.islice(tasks, 1):
                    _assign(connection, following, assigned)
                yield task, result
    finally:
        for connection, process in workers.items():
            connection.close()
            process.terminate()
        for process in workers.values():
            process.join()


def _start(context, function, workers):
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(function, theirs), daemon=True)
    # Ctrl-C reaches all processes of a terminal. The worker inherits the blocked signal: this process ends it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    workers[ours] = process
    return ours


def _assign(connection, task, assigned):
    assigned[connection] = task
    try:
        connection.send(task)
    except ConnectionError as error:
        raise WorkerKilledError from error


def _work(function, connection):
    """Run tasks from the pipe until it is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer = False, function(task)
        except Exception as error:
            if not isinstance(error, UserError):
                error.add_note(traceback.format_exc())  # tracebacks cannot be pickled
            answer = True, error
        connection.send(answer)


def _end_with_parent():
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
