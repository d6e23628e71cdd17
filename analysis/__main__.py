"""Lists the studies, or runs one: `python -m analysis [STUDY ...]`."""

import itertools
import sys
from collections.abc import Sequence

from analysis import OLD_NAMES
from analysis.framework.discovery import find_studies, load_study


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study that the first argument names, and return its exit status; list all studies without one.

    Args:
        argv: arguments; those of the process if None.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    studies = find_studies()
    if name in ("-h", "--help"):
        print("usage: python -m analysis STUDY ...\n\nA study's own arguments: python -m analysis STUDY --help")
        width = max(len(study.name) for study in studies)
        for folder, group in itertools.groupby(studies, key=lambda study: study.folder):
            print(f"\n{folder}:")
            print("\n".join(f"  {study.name:{width}}  {study.description}" for study in group))
        return 0
    modules = {study.name: study.module for study in studies}
    module = modules.get(OLD_NAMES.get(name, name))
    if module is None:
        print(f"analysis: expected the name of a study, found {name}; `python -m analysis` lists them", file=sys.stderr)
        return 2
    return load_study(module).main(rest, name=name)


if __name__ == "__main__":
    sys.exit(main())
