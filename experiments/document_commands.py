"""Run the commands of the documentation, in order, on simulated data in a temporary folder.

    python -m experiments.document_commands [PAGE ...] [--list]

Every page gets a folder with simulated half-maps and entries under the names that the documentation uses, and links to
the repository. `LEAVE_OUT` says which commands are not run, and why; `SHORTEN` says which are run with fewer steps,
smaller boxes, or other input. Exit status 1 if a command fails. 15 minutes on two cores.

The commands are the lines of the `bash` and `python` blocks, and inline code that is a complete command. `tests/docs`
checks that all of them, and the incomplete ones, name subcommands and options that exist.
"""

import argparse
import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import jax

from crefjax.errors import UserError
from crefjax.models.unet3d import UNet3DConfig, init_network
from crefjax.training.config import read_config
from crefjax.weights.store import CARD_FIELDS, save_weights

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
# Programs of others that the documentation calls; their arguments are not checked.
OTHER_PROGRAMS = {
    *("[", "cat", "cd", "cp", "exit", "export", "fi", "ls", "mkdir", "mkdocs", "mv", "pip", "relion_reconstruct"),
    *("rm", "ruff", "sbatch", "srun", "scontrol", "source", "tar", "then", "venv", "xargs"),
}
# What a command contains that is not run, and the reason.
LEAVE_OUT = {
    r"pip install|-m venv": "installs packages from the network",
    r"crefjax fetch": "downloads from EMDB",
    r"sbatch|srun|--coordinator": "needs a cluster",
    r"~/": "writes into the home folder",
    r"mkdocs serve": "serves until it is stopped",
    r"\.venv/bin/(pytest|ruff)|^\.ci/run": "run by .ci/run",
    r"experiments\.document_commands": "is this program",
    r"weights_results|simulated_benchmark|experiments\.ablations": "needs hours, or certain PDB entries",
    r"analysis (local_maps|kept)": "needs hours, or certain PDB entries",
    r"model_fsc|analysis spectra|8tze 7yc8 -o bench": "needs real maps or certain entries",
    r"config\.steps=6000": "resumes a run, which needs its PDB entries",
    r"release_weights": "replaces the included weights",
    r"--program": "needs LAFTER",
    r"--method servalcat|--cryoridge": "needs Servalcat or cryoRIDGE",
    r"DIR/entries": "needs certain PDB entries",
    r"WORKDIR": "needs training runs",
    r"images_(nt2c|diffusion|wgan)|set_schedule|gray_noise": "needs large simulated sets, and hours",
    r"(3j9i|5a1a)\.|7yc8.* --particles|runs/5a1a|runs/images_truth": "needs certain PDB entries, and hours",
    r"experiments\.relion|relion_reconstruct|runs/relion|external-reconstruct STAR|relion-job": "needs RELION's files",
    r"experiments\.gpu": "needs a GPU",
    r"experiments\.benchmarks": "measures, which needs an idle machine",
}
_FEW_STEPS = "--config.steps=2 --config.epoch_steps=2"
_PHANTOMS = " ".join(
    f"--config.data.stream.{field}"
    for field in ("models=", "exclude=", "held_out=", "phantoms=1", "held_out_phantoms=1", "held_out_samples=2")
)
# Parts of commands, and what replaces them so that they take seconds and need nothing that is not included.
SHORTEN = {
    r"crefjax train .*configs/paper\.py.*": rf"\g<0> {_FEW_STEPS} --config.batch=2 --config.network.depth=2",
    r"crefjax train .*configs/weights\.py[^;]*": (
        rf"\g<0> {_FEW_STEPS} --config.schedule.cycle_steps=2 --config.schedule.warmup=1 {_PHANTOMS}"
        " --config.data.stream.held_out_patch=32 --config.data.patch=32"
    ),
    r"crefjax train .*configs/images_noise2noise\.py[^;]*": (
        rf"\g<0> {_FEW_STEPS} --config.schedule.warmup=1 --config.data.images.folders=particles"
    ),
    r"7a4m\.cif\.gz( 8tze\.cif\.gz)? 9be6\.cif\.gz": "7a4m.cif.gz",
    r"--minutes 10": "--minutes 1",
    r"--box (108|256)": "--box 64",
    r"--weights crefdenoiser( \.\.\.)?": "--weights truth",
    r"ENTRIES\.\.\.": "entries/*",
    r"show NAME": "show truth",
    r"--symmetry D7": "--symmetry D7 --insist",  # the phantom has none
    r"MAP -o DENOISED|map\.mrc -o denoised\.mrc": "half_map_1.mrc -o denoised.mrc",
    r"/shared/software/crefjax/bin/|/scratch/": "",
}


class Command(NamedTuple):
    """A command of the documentation.

    Attributes:
        page: File that contains it.
        line: Line number in that file, from 1.
        text: The shell command, on one line, or the Python code.
        kind: `bash` or `python` for a block, `span` for inline code.
    """

    page: Path
    line: int
    text: str
    kind: str

    @property
    def place(self) -> str:
        """File and line, relative to the repository."""
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page}:{self.line}"


class DocumentError(Exception):
    """A command of the documentation that the program does not understand."""


class _Parsed(BaseException):
    """Carries what argparse has parsed out of a `main` function."""


def blocks(page: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, language, and text of every fenced block of a page."""
    lines = page.read_text(encoding="utf-8").split("\n")
    start = None
    for number, line in enumerate(lines):
        if line.startswith("```") and start is None:
            start = number
        elif line.startswith("```"):
            yield start + 2, lines[start].removeprefix("```"), "\n".join(lines[start + 1 : number])
            start = None


def spans(page: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and text of every inline code span of a page, blocks excluded."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", lambda block: "\n" * block.group().count("\n"), text, flags=re.M | re.S)
    for paragraph in re.finditer(r"(?:.+\n?)+", text):
        for span in re.finditer(r"`([^`]+)`", paragraph.group()):
            yield text.count("\n", 0, paragraph.start() + span.start()) + 1, " ".join(span.group(1).split())


def commands(page: Path) -> list[Command]:
    """Return the commands of a page in order.

    A line of a `bash` block is a command; a batch script, a `python` block, and a code span that starts with a command
    are one command each.
    """
    found = []
    for number, language, text in blocks(page):
        if language == "python":
            found.append(Command(page, number, text, language))
        elif language == "bash":
            lines = [(number + index, line) for index, line in enumerate(text.split("\n"))]
            joined = []
            for index, line in lines:
                if joined and joined[-1][1].endswith("\\"):
                    joined[-1] = (joined[-1][0], f"{joined[-1][1].rstrip(chr(92))} {line.strip()}")
                elif line.strip() and not line.startswith("#"):
                    joined.append((index, line.strip()))
            if "#SBATCH" in text:
                joined = [(joined[0][0], "; ".join(line for _, line in joined))]
            found += [Command(page, index, " ".join(line.split()), language) for index, line in joined]
    for number, text in spans(page):
        if re.match(r"(crefjax|pytest|python -m (analysis|experiments)\S*) ", text):
            found.append(Command(page, number, text, "span"))
    return sorted(found, key=lambda command: command.line)


def calls(text: str) -> Iterator[list[str]]:
    """Yield the words of every program call in a shell command, those inside `sh -c` included.

    Assignments, keywords, redirections, and the folder of the program are dropped; `python -m NAME` becomes `NAME`, and
    `python -m analysis STUDY` one word, `analysis STUDY`.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    words = []
    for word in [*lexer, ";"]:
        if word and set(word) <= set(";&|"):
            yield from _calls_of(words)
            words = []
        else:
            words.append(word)


def _calls_of(words):
    while words and (words[0] in {"if", "then"} or re.match(r"\w+=", words[0])):
        words = words[1:]
    if ">" in words:
        words = words[: words.index(">")]
    if not words:
        return
    if "sh" in words and "-c" in words:
        yield from calls(words[words.index("-c") + 1])
        return
    name = words[0].lstrip("$").rsplit("/", 1)[-1]
    if re.fullmatch(r"python[\d.]*", name) and words[1:2] == ["-m"]:
        size = 2 if words[2] == "analysis" else 1  # `analysis NAME` is a program
        name, words = " ".join(words[2 : 2 + size]), words[1 + size :]
    yield [name, *words[1:]]


def _entry_point(name):
    name, *study = name.split()
    if study:
        return lambda arguments: importlib.import_module(f"{name}.__main__").main([*study, *arguments])
    if name == "crefjax":
        name = "crefjax.cli.main"
    elif (spec := find_spec(name)) is None:
        raise DocumentError(f"{name}: no such module")
    elif spec.submodule_search_locations:  # a package
        name = f"{name}.__main__"
    module = importlib.import_module(name)
    if not hasattr(module, "main"):  # of another project
        raise DocumentError(f"{name}: it has no `main` that could be given arguments")
    return module.main


def parse(words: Sequence[str], *, strict: bool = True) -> tuple[argparse.ArgumentParser, argparse.Namespace | None]:
    """Parse a command line by the parser of its program, without running it.

    Args:
        words: Program (`crefjax` or a module) and arguments.
        strict: Whether all arguments must be valid; otherwise only the parser is returned.

    Returns:
        The parser, and the arguments if `strict`.

    Raises:
        DocumentError: The program does not exist, or refuses the arguments.
    """
    original = argparse.ArgumentParser.parse_known_args
    outermost = []

    def parse_known_args(self, arguments=None, namespace=None):
        if outermost:
            return original(self, arguments, namespace)
        outermost.append(self)
        if not strict:
            raise _Parsed(self, None, [])
        raise _Parsed(self, *original(self, arguments, namespace))

    main, errors = _entry_point(words[0]), io.StringIO()
    argparse.ArgumentParser.parse_known_args = parse_known_args
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            main(list(words[1:]))
    except _Parsed as parsed:
        parser, arguments, extras = parsed.args
    except SystemExit as stop:
        if stop.code:
            raise DocumentError(errors.getvalue()) from None
        return outermost[0], None
    else:
        if strict and {"-h", "--help"} & set(words):
            return outermost[0], None
        raise DocumentError(errors.getvalue())
    finally:
        argparse.ArgumentParser.parse_known_args = original
    _check_config(arguments, extras)
    return parser, arguments


def _check_config(arguments, extras):
    if wrong := [word for word in extras if not word.startswith("--config.")]:
        raise DocumentError(f"unrecognized arguments: {' '.join(wrong)}")
    if config := getattr(arguments, "config", None):
        try:
            read_config(str(ROOT / config), extras)
        except UserError as error:
            raise DocumentError(str(error)) from error


def check(command: Command) -> None:
    """Check that the programs, subcommands, and options of a command exist.

    Raises:
        DocumentError: One of them does not.
    """
    if command.kind == "python":
        compile(command.text, command.place, "exec")
        return
    for words in calls(command.text):
        if words[0] == "pytest":
            if missing := [word for word in words if word.startswith("tests/") and not (ROOT / word).exists()]:
                raise DocumentError(f"pytest: no such path {missing[0]}")
        elif not re.match(r"(crefjax$|(analysis|experiments)\b)", words[0]):
            if words[0] not in OTHER_PROGRAMS:
                raise DocumentError(f"{words[0]}: expected crefjax, or one of {', '.join(sorted(OTHER_PROGRAMS))}")
        elif command.kind == "bash" or is_complete(command):
            parse(words)
        else:
            check_options(parse(words, strict=False)[0], words[1:])


def is_complete(command: Command) -> bool:
    """Return whether the program of a command accepts its arguments."""
    try:
        for words in calls(command.text):
            parse(words)
    except DocumentError:
        return False
    return True


def check_options(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Check that subcommands and options exist, even if other arguments are missing.

    Raises:
        DocumentError: One of them does not.
    """
    for word in words:
        subcommands = _subcommands(parser)
        if word.startswith("-"):
            name = word.split("=")[0]
            if name not in parser._option_string_actions and not name.startswith("--config."):
                raise DocumentError(f"{parser.prog}: no option {name}")
        elif subcommands:
            if word not in subcommands:
                raise DocumentError(f"{parser.prog}: no subcommand {word}")
            parser = subcommands[word]


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the names of the options of a parser and of its subcommands."""
    names = set(parser._option_string_actions)
    return names.union(*(options(subcommand) for subcommand in _subcommands(parser).values()))


def _subcommands(parser):
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(actions[0].choices) if actions else {}


def reason_to_leave_out(command: Command) -> str | None:
    """Return why a command is not run; None if it is."""
    return next((reason for pattern, reason in LEAVE_OUT.items() if re.search(pattern, command.text)), None)


def shortened(text: str) -> str:
    """Return a command with the replacements of `SHORTEN`."""
    for pattern, replacement in SHORTEN.items():
        text = re.sub(pattern, replacement, text)
    return text


def prepare(folder: Path, data: Path) -> None:
    """Fill the folder of a page with links to the repository and copies of the simulated data."""
    shutil.copytree(data, folder)
    for name in ("analysis", "crefjax", "experiments", "tests"):
        (folder / name).symlink_to(ROOT / name)


def simulate_data(folder: Path, environment: dict) -> None:
    """Make what the documentation names: half-maps, three entries, models, and weights that are not included."""
    network = UNet3DConfig(depth=4)
    about = dict.fromkeys(CARD_FIELDS, "random parameters") | {"grid": 3.3}
    for name in ("deep", "cref_losses"):
        save_weights(folder / "runs" / name / "last", init_network(jax.random.key(0), network), network, about)
    (folder / "entries").mkdir(parents=True)
    for seed, name in enumerate(("one", "two", "three")):
        size = "--voxel-size 2 --resolution 6 --residues 150"
        text = f"crefjax simulate phantom -o entries/{name} {size} --seed {seed}"
        subprocess.run(["bash", "-ec", text], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    for name in ("half_map_1.mrc", "half_map_2.mrc"):
        shutil.copy(folder / "entries/one" / name, folder / name)
    shutil.copy(folder / "entries/one/model.cif", folder / "model.cif")
    for name in ("map.mrc", "sharpened.mrc"):
        shutil.copy(folder / "half_map_1.mrc", folder / name)
    for name in ("7a4m", "8tze", "9be6"):
        text = f"gzip -c entries/one/model.cif > {name}.cif.gz"
        subprocess.run(["bash", "-ec", text], cwd=folder, check=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the commands; return 0, or 1 if one of them fails."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.document_commands", description=__doc__.splitlines()[0]
    )
    names = {page.stem: page for page in PAGES}
    parser.add_argument("pages", metavar="PAGE", nargs="*", help=f"pages to run: {', '.join(names)} (default: all)")
    parser.add_argument("--list", action="store_true", help="list the commands, and the reasons not to run them")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.pages) - set(names):
        parser.error(f"expected pages among {', '.join(names)}, found {', '.join(sorted(unknown))}")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    failed = 0
    with tempfile.TemporaryDirectory(prefix="crefjax-documents-") as scratch:
        data = Path(scratch) / "data"
        if not arguments.list:
            simulate_data(data, environment)
        for name in arguments.pages or names:
            if not arguments.list:
                prepare(Path(scratch) / name, data)
            for command in commands(names[name]):
                failed += _run(command, Path(scratch) / name, environment, dry=arguments.list)
    return 1 if failed else 0


def _run(command, folder, environment, *, dry):
    """Run a command, or say why not; return whether it failed."""
    if command.kind == "span" and not is_complete(command):
        return False
    reason = reason_to_leave_out(command)
    text = command.text if command.kind == "python" else shortened(command.text)
    shown = " ".join((command.text if dry or reason else text).split())
    if reason or dry:
        print(f"{command.place}: {f'left out ({reason})' if reason else 'to run'}: {shown}", flush=True)
        return False
    start = time.monotonic()
    call = [sys.executable, "-c", text] if command.kind == "python" else ["bash", "-ec", text]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    status = "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
    print(f"{command.place}: {status}, {time.monotonic() - start:.0f} s: {shown}", flush=True)
    if done.returncode:
        print(done.stdout + done.stderr, flush=True)
    return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
