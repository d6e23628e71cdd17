"""Studies as commands, and the arguments and processes that they share.

A study is a module in a folder of `analysis` that defines `STUDY`. Its name is the module's, and the first line of the
module's docstring describes it.
"""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

from analysis.framework.command import check_output, run_command
from analysis.framework.output import Output
from crefjax.errors import UserError
from crefjax.utils.progress import progress_bar
from crefjax.utils.workers import WorkerKilledError, run_tasks
from crefjax.weights.store import Weights, load_weights


class Study:
    """A study that `python -m analysis NAME` runs.

    Args:
        module: `__name__` of the module that defines it.
        run: does the work. It takes the arguments and the output, and returns the exit status, or None for 0.
        add_arguments: adds the study's own arguments to a parser.
        output: `new` for a folder with the results of one run, which `--overwrite` replaces; `resumed` for a folder
            in which a further run continues; `none` for a study that writes elsewhere.
    """

    def __init__(
        self,
        module: str,
        run: Callable[[argparse.Namespace, Output], int | None],
        add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
        *,
        output: Literal["new", "resumed", "none"] = "new",
    ):
        self.module, self._run, self._add_arguments, self._output = module, run, add_arguments, output

    @property
    def name(self) -> str:
        """Name of the study and of its files."""
        return self.module.rpartition(".")[2]

    @property
    def description(self) -> str:
        """The study in one line."""
        return sys.modules[self.module].__doc__.splitlines()[0]

    def main(self, argv: Sequence[str] | None = None, *, name: str | None = None) -> int:
        """Run the study as a command line says, and return the exit status, 2 after a user's mistake.

        Args:
            argv: arguments; those of the process if None.
            name: another name for the command and its files.
        """
        name = name or self.name
        parser = argparse.ArgumentParser(prog=f"python -m analysis {name}", description=self.description)
        self._add_arguments(parser)
        if self._output != "none":
            parser.add_argument("-o", "--output", metavar="DIR", required=True, type=Path, help="folder to write")
        if self._output == "new":
            parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")

        def run(arguments):
            if getattr(arguments, "jobs", 1) < 1:
                raise UserError(f"--jobs: expected 1 or more, found {arguments.jobs}")
            output = Output(getattr(arguments, "output", Path()), name)
            if self._output == "new":
                check_output(output.folder, f"{name}.*", overwrite=arguments.overwrite)
            return self._run(arguments, output)

        return run_command(name, parser, run, argv)


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Add `--jobs`."""
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="entries at a time, a process each; default: 1"
    )


def add_weights(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--weights`, to be loaded with `load_named`."""
    parser.add_argument(
        "--weights",
        nargs="+" if required else "*",
        required=required,
        default=[],
        metavar="W",
        help="names or folders of weights",
    )


def load_named(paths: Sequence[str]) -> dict[str, Weights]:
    """Load weights, by unique names: their own, or their run's if they are called `best` or `last`.

    Args:
        paths: names or folders of weights.
    """
    named = {}
    for weights in map(load_weights, paths):
        name = unique = weights.label
        number = 2
        while unique in named:
            unique, number = f"{name} ({number})", number + 1
        named[unique] = weights
    return named


def run_jobs(function: Callable, tasks: Collection, jobs: int, title: str) -> Iterator[tuple]:
    """Call a function on the tasks of entries, in processes of their own if there are several jobs.

    Args:
        function: of a module, so that other processes find it.
        tasks: each has the `path` of its entry.
        jobs: number of tasks at a time.
        title: of the progress bar.

    Yields:
        Each task with its result, as they are done.

    Raises:
        UserError: a process was killed.
    """
    if jobs > 1:  # on a GPU the first process would take most of its memory, and leave none to the others
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with progress_bar(title) as show:
        try:
            results = run_tasks(function, tasks, jobs=min(jobs, max(len(tasks), 1)))
            for number, (task, result) in enumerate(results, start=1):
                yield task, result
                show(number / len(tasks), task.path.resolve().name)
        except WorkerKilledError as error:
            raise UserError("a worker process was killed, probably out of memory; use fewer --jobs") from error
