"""The command line of a study over entries."""

from collections.abc import Sequence
from pathlib import Path

from analysis.files import run_study
from analysis.over_entries import Study, check_entries_output, entries_parser, run
from analysis.tables import summary_lines, write_study


def study_main(study: Study, argv: Sequence[str] | None) -> int:
    """Run one study; returns 0, or 2 after a mistake of the user's, told in one line.

    Args:
        study: to run.
        argv: arguments; those of the process if None.
    """

    def work(arguments):
        check_entries_output(study.name, arguments)
        found = run([study], arguments)
        settings = {"entries": arguments.entries, "methods": arguments.methods}
        summary = write_study(study, found, Path(arguments.output), settings)
        print("\n".join(summary_lines(study, summary)))
        if found.left_out:
            print(f"{len(found.left_out)} left out, see {Path(arguments.output) / study.name}.json")
        return 0

    return run_study(study.name, entries_parser(study.name, study.about), work, argv)
