"""Finds the studies in the folders of `analysis`, without importing them."""

import ast
import importlib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class StudyFile(NamedTuple):
    """A module that defines a study, found without importing it.

    Attributes:
        folder: of `analysis`, such as `metrics`.
        name: of the study.
        module: to import.
        description: first line of its docstring.
    """

    folder: str
    name: str
    module: str
    description: str


def find_studies(folder: str = "*") -> list[StudyFile]:
    """Return the studies in a folder of `analysis`, or in all of them, sorted by folder and name."""
    studies = []
    for path in sorted(ROOT.glob(f"{folder}/[a-z]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        if any(isinstance(target, ast.Name) and target.id == "STUDY" for target in targets):
            module = f"{ROOT.name}.{path.parent.name}.{path.stem}"
            studies.append(StudyFile(path.parent.name, path.stem, module, ast.get_docstring(tree).splitlines()[0]))
    return studies


def load_study(module: str):
    """Import a module, and return the `Study` that it defines."""
    return importlib.import_module(module).STUDY
