"""The documentation names programs, options, files, and modules that exist."""

import ast
import importlib
import re
from importlib.util import find_spec

import pytest

from crefjax.cli.main import COMMANDS, main, make_parser
from crefjax.training.config import flat, read_config
from experiments import document_commands
from experiments.document_commands import (
    ROOT,
    Command,
    DocumentError,
    blocks,
    calls,
    check,
    commands,
    options,
    parse,
    spans,
)

PAGES = document_commands.PAGES
NAMES = [page.name for page in PAGES]
FOLDERS = ("", "crefjax", "experiments/configs")  # that paths in the documentation are relative to


@pytest.fixture(scope="module")
def known_options():
    """The options of all commands and of all modules that the documentation runs."""
    known = set().union(*(options(make_parser(name)) for name in COMMANDS))
    lines = [command.text for page in PAGES for command in commands(page) if command.kind != "python"]
    modules = {words[0] for text in lines for words in calls(text) if words[0].startswith(("analysis", "experiments"))}
    return known.union(*(options(parse([name], strict=False)[0]) for name in modules))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_names_its_language(page):
    assert {language for _, language, _ in blocks(page)} <= {"bash", "python", "text"}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_is_accepted_by_its_program(page):
    for command in commands(page):
        try:
            check(command)
        except DocumentError as error:
            pytest.fail(f"{command.place}: {command.text}: {error}")


def test_all_commands_are_listed_with_what_is_left_out(capsys):
    assert document_commands.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("clusters.md" in line and ": to run: crefjax prepare" in line for line in lines)
    assert any("relion.md" in line and "left out (needs RELION's files)" in line for line in lines)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_option_in_the_text_exists(page, known_options):
    fields = {f"--config.{name}" for name in flat(read_config(str(ROOT / "experiments/configs/weights.py")))}
    for line, text in spans(page):
        for name in re.findall(r"(?:^|(?<=[ (]))--[a-z][\w.-]*", text if text.startswith("--") else ""):
            known = name in known_options or name in fields or name in {"--config", "--workdir"}
            assert known, f"{page.name}:{line}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_path_in_the_text_exists(page):
    for line, text in spans(page):
        if re.fullmatch(r"[\w./-]+\.py|(crefjax|analysis|experiments|tests|docs)/[\w./-]*", text):
            assert any((ROOT / folder / text).exists() for folder in FOLDERS), f"{page.name}:{line}: {text}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_module_in_the_text_exists(page):
    names = [text for _, text in spans(page)]
    names += re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M)
    for text in names:
        if re.fullmatch(r"(crefjax|analysis|experiments)(\.\w+)+", text):
            module, _, attribute = text.rpartition(".")
            try:
                importlib.import_module(text)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), attribute), f"{page.name}: {text}"


def test_places_to_register_additions_exist():
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    places = re.findall(r"`(\w+)`,? (?:in|\() ?`([\w/]+\.py)`", text)
    assert ("COMMANDS", "crefjax/cli/main.py") in places
    for name, path in places:
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8")), f"{path}: {name}"


def test_paths_in_the_continuous_integration_exist():
    text = (ROOT / ".ci/run").read_text(encoding="utf-8")
    paths = re.findall(r"tests/[\w./]+\.py|crefjax/weights/\w+", text)
    assert paths
    assert all((ROOT / path).exists() for path in paths)


def test_commands_in_module_docstrings_name_existing_options():
    for path in sorted(
        path for folder in ("crefjax", "analysis", "experiments") for path in (ROOT / folder).rglob("*.py")
    ):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        text = re.sub(r"\\\n\s+", "", docstring)
        for line in re.findall(r"^    ((?:crefjax|python -m (?:analysis|experiments)\S*) \S.*)$", text, re.M):
            words = next(calls(re.sub(r"[][]", " ", line)))
            if words[0] != "crefjax" and not any(word.startswith("-") for word in words):
                assert find_spec(words[0].split()[0]), f"{path.relative_to(ROOT)}: {line}"
                continue
            try:
                document_commands.check_options(parse(words, strict=False)[0], words[1:])
            except DocumentError as error:
                pytest.fail(f"{path.relative_to(ROOT)}: {line}: {error}")


def test_folders_in_the_map_of_the_readme_exist():
    (text,) = (text for _, language, text in blocks(ROOT / "README.md") if language == "text")
    folder = ROOT
    for line in text.split("\n"):
        folder = ROOT if not line.startswith(" ") else ROOT / "crefjax"
        for name in re.findall(r"[\w.]+/|\w+\.py", line[:24]):
            assert (folder / name).exists(), line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("crefjax fsc a.mrc b.mrc", [["crefjax", "fsc", "a.mrc", "b.mrc"]]),
        ("bin/crefjax demo && pip install -e '.[test]'", [["crefjax", "demo"], ["pip", "install", "-e", ".[test]"]]),
        ("if [ $x -eq 1 ]; then scontrol requeue; fi", [["[", "$x", "-eq", "1", "]"], ["scontrol", "requeue"], ["fi"]]),
        ("program=/bin/crefjax; $crefjax mask", [["crefjax", "mask"]]),
        ("crefjax completion bash > ~/crefjax", [["crefjax", "completion", "bash"]]),
        ("python3 -m analysis benchmark entry", [["analysis benchmark", "entry"]]),
        ("ls | sh -c 'crefjax check \"$0\"/a.mrc'", [["ls"], ["crefjax", "check", "$0/a.mrc"]]),
    ],
)
def test_calls_in_a_shell_command(text, expected):
    assert list(calls(text)) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("crefjax denoise a.mrc b.mrc -o c.mrc --deblur", "unrecognized arguments: --deblur"),
        ("crefjax denoise a.mrc", "required: -o"),
        ("crefjax sharpen a.mrc", "invalid choice: 'sharpen'"),
        ("python -m analysis nothing", "expected the name of a study"),
        ("crefjax train --config=experiments/configs/paper.py --workdir=run --config.losses.none=1", "none"),
        ("relion_refine", "expected crefjax"),
        ("pytest tests/none", "no such path tests/none"),
    ],
)
def test_wrong_commands_are_found(text, error):
    with pytest.raises(DocumentError, match=re.escape(error)):
        check(Command(ROOT / "README.md", 1, text, "bash"))


@pytest.mark.parametrize(
    ("text", "error"),
    [("crefjax denoise --deblur", "no option --deblur"), ("crefjax weights plot", "no subcommand plot")],
)
def test_incomplete_commands_may_omit_arguments_but_not_invent_them(text, error):
    check(Command(ROOT / "README.md", 1, "crefjax denoise --local", "span"))
    with pytest.raises(DocumentError, match=error):
        check(Command(ROOT / "README.md", 1, text, "span"))


def test_blocks_spans_and_commands_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Run `crefjax\ncheck` or\n\n```bash\ncrefjax fsc a.mrc \\\n    b.mrc\n# comment\ncrefjax demo  # quick\n```\n\n"
        "```text\ncrefjax 0.1\n```\n\n```bash\n#SBATCH --mem=1G\nx=1\ncrefjax demo\n```\n"
    )
    assert [(command.line, command.text, command.kind) for command in commands(page)] == [
        (1, "crefjax check", "span"),
        (5, "crefjax fsc a.mrc b.mrc", "bash"),
        (8, "crefjax demo # quick", "bash"),
        (17, "x=1; crefjax demo", "bash"),
    ]


def test_commands_that_are_left_out_or_shortened_are_in_the_documentation():
    texts = [command.text for page in PAGES for command in commands(page)]
    for pattern in (*document_commands.LEAVE_OUT, *document_commands.SHORTEN):
        assert any(re.search(pattern, text) for text in texts), pattern


def test_list_names_every_complete_command(capsys):
    assert document_commands.main(["training", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("docs/training.md:") and "to run: crefjax prepare entries/* -o dataset" in line
        for line in lines
    )
    assert any("left out (needs a GPU)" in line for line in lines)


def test_main_is_not_replaced_after_parsing(capsys):
    """Parsing a command leaves argparse as it was."""
    parse(["crefjax", "fsc", "a.mrc", "b.mrc"])
    assert main(["fsc", "missing_1.mrc", "missing_2.mrc"]) == 2
    assert "missing_1.mrc" in capsys.readouterr().err
