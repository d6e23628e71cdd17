"""The command `python -m analysis`: its list, how studies are found, their old names, exit status, and checksums."""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import OLD_NAMES
from analysis.__main__ import main
from analysis.framework import discovery, entry_study
from analysis.framework.command import check_output, run_command
from analysis.framework.study import Study
from crefjax.errors import UserError

ROOT = Path(__file__).parents[2]


def test_every_study_is_listed_with_its_description(capsys):
    assert main([]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    newer = {"image_denoisers", "image_reconstructions", "fall_off", "contrast"}
    assert {name for name, _ in lines} == {*OLD_NAMES.values(), *newer}
    assert all(description.endswith(".") for _, description in lines)


def test_the_list_does_not_import_jax():
    code = "import sys; from analysis.__main__ import main; main([]); sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == 0


def test_an_unknown_study_is_one_line(capsys):
    assert main(["nothing"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_defines_a_study_is_found(tmp_path, monkeypatch):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/new.py").write_text('"""Measure something.\n\nMore."""\n\nSTUDY = None\n')
    (tmp_path / "metrics/helper.py").write_text('"""Helps."""\n')
    monkeypatch.setattr(discovery, "ROOT", tmp_path)
    module = f"{tmp_path.name}.metrics.new"
    assert discovery.find_studies() == [("metrics", "new", module, "Measure something.")]
    assert discovery.find_studies("weights") == []


@pytest.mark.parametrize("name", OLD_NAMES)
def test_old_commands_are_scripts_and_not_modules(name):
    module = f"analysis.{name}" + ".__main__" * (name == "baselines")
    spec = importlib.util.find_spec(module)
    assert repr(name) in spec.loader.get_source(module)
    with pytest.raises(ImportError, match="is a command"):
        importlib.import_module(module)


@pytest.mark.parametrize("name", ["baselines", "against_truth"])
def test_old_commands_run(name):
    command = [sys.executable, "-m", f"analysis.{name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: python -m analysis {name} " in done.stdout


def test_another_name_names_the_files(tmp_path):
    outputs = []
    study = Study(__name__, lambda arguments, output: outputs.append(output))
    assert study.name == __name__.rpartition(".")[2]
    assert study.main(["-o", str(tmp_path)], name="old") == 0
    assert outputs == [(tmp_path, "old")]


def test_files_of_an_earlier_run_are_replaced_only_with_overwrite(tmp_path, capsys):
    study = Study(__name__, lambda arguments, output: output.write("txt", "new"))
    argv = ["-o", str(tmp_path / "out")]
    assert study.main(argv) == 0
    assert study.main(argv) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert study.main([*argv, "--overwrite"]) == 0
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["new"]


@pytest.mark.parametrize("error", [UserError("file: wrong"), FileExistsError(17, "File exists", "file")])
def test_mistakes_are_one_line_and_exit_status_2(error, capsys):
    def fail(arguments):
        raise error

    assert run_command("name", argparse.ArgumentParser(), fail, []) == 2
    assert capsys.readouterr().err.startswith("name: file: ")


def test_an_output_folder_needs_a_parent_and_no_file_in_its_place(tmp_path):
    (tmp_path / "file").touch()
    for folder, text in (("file", "expected a folder"), ("no/such", "make it first")):
        with pytest.raises(UserError, match=text):
            check_output(tmp_path / folder, "*", overwrite=True)


def test_the_checksum_sees_modules_that_a_study_imports(tmp_path, monkeypatch):
    files = {
        "metrics/study.py": "from analysis.framework import direct\n",
        "framework/direct.py": "def f():\n    import analysis.framework.lazy\n",
        "framework/lazy.py": "x = 1\n",
        "framework/unused.py": "x = 1\n",
    }
    root = tmp_path / "analysis"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(entry_study, "ROOT", root)

    def checksum():
        entry_study.code_checksum.cache_clear()
        return entry_study.code_checksum("analysis.metrics.study")

    first = checksum()
    (root / "framework/unused.py").write_text("x = 2\n")
    assert checksum() == first
    for name in list(files)[:3]:
        (root / name).write_text(files[name] + "y = 2\n")
        assert checksum() != first
        (root / name).write_text(files[name])
    assert checksum() == first
    entry_study.code_checksum.cache_clear()
