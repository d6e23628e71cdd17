"""Who may import whom, and what is quick to start."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "crefjax"
# A room may import itself, those named here, and those of everyone, which import none but each other.
ROOMS = {
    "io": set(),
    "masking": {"spectral"},
    "spectral": set(),
    "models": set(),
    "data": {"io", "spectral", "masking"},  # of spectral what does without JAX
    "losses": {"spectral"},
    "simulate": {"spectral", "io"},
    "weights": {"models", "io"},
    "inference": {"weights", "models", "spectral", "data", "io", "masking"},
    "images": {"io", "data", "spectral", "simulate", "weights", "models", "inference"},
    "relion": {"inference", "weights", "spectral", "data", "io", "masking"},
    "plotting": {"spectral", "io"},
    "report": {"plotting", "inference", "spectral", "data", "io", "masking"},
    "training": {"data", "io", "masking", "spectral", "simulate", "models", "losses", "weights", "images"},
}
EVERYONES = {"errors", "utils", "__version__"}
ABOVE_ALL = {"cli", "__main__", "__init__"}


def imported_rooms(path):
    """Rooms of the package that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [node.module] if node.module != "crefjax" else [f"crefjax.{a.name}" for a in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("crefjax.")}
        found |= {name for name in names if name.split(".")[0] in ("experiments", "analysis")}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_in_the_allowed_directions(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    found = imported_rooms(path) - EVERYONES - {room}
    if room in ABOVE_ALL:
        assert not found & {"experiments", "analysis"}
    elif room in EVERYONES:
        assert not found - EVERYONES
    else:
        assert found <= ROOMS[room], f"{room} may not import {found - ROOMS[room]}"


@pytest.mark.parametrize("room", ["io", "masking", "data", "utils"])
def test_rooms_of_worker_processes_do_not_load_jax(room):
    modules = [f"crefjax.{room}", *(f"crefjax.{room}.{path.stem}" for path in (PACKAGE / room).glob("[a-z]*.py"))]
    code = f"import sys, {', '.join(modules)}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LIGHT = [f"crefjax.spectral.{name}" for name in ("b_factors", "curves", "resample", "windows")]


@pytest.mark.parametrize("module", [*LIGHT, "crefjax.simulate.stream", "crefjax.training.config"])
def test_modules_for_worker_processes_and_configurations_do_not_load_jax(module):
    code = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["demo", "finetune", "paper", "weights"])
def test_configs_are_read_before_jax_is_loaded(name):
    path = str(PACKAGE.parent / f"experiments/configs/{name}.py")
    read = f"from crefjax.training.config import read_config; read_config({path!r}, ['--config.weights=truth'])"
    code = f"import sys; {read}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_the_package_is_packaged():
    pytest.importorskip("setuptools")
    from setuptools import find_packages

    settings = configparser.ConfigParser()
    settings.read(PACKAGE.parent / "setup.cfg")
    include = settings["options.packages.find"]["include"].split()
    found = find_packages(str(PACKAGE.parent), include=include)
    assert found
    assert all(name.split(".")[0] == "crefjax" for name in found)
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        name = ".".join(folder.relative_to(PACKAGE.parent).parts)
        assert name in found, f"{name} has no __init__.py and would be left out"


def test_files_that_are_not_python_are_packaged():
    settings = configparser.ConfigParser()
    settings.read(PACKAGE.parent / "setup.cfg")
    packaged = set()
    for package, patterns in settings["options.package_data"].items():
        folder = PACKAGE.parent / package.replace(".", "/")
        packaged |= {path for pattern in patterns.split() for path in folder.glob(pattern)}
    others = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert PACKAGE / "report/assets/report.css" in others
    assert others <= packaged
