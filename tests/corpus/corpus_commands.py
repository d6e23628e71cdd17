"""Every command that reads maps, run on the inputs of a case, and whether what must happen did."""

import contextlib
import functools
import io
import json
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

from corpus_material import (
    FIELDS,
    SIDE,
    SINGLE,
    Accepted,
    Inputs,
    NotAPair,
    NotSilent,
    Orderly,
    Refused,
    half_maps,
    set_fields,
    write_inputs,
    write_map,
)
from corpus_results import check_curve, check_dataset, check_map, check_report, header_of, left_out, read
from helpers.cli import Outcome, cli, error_line, tree

SECONDS = 30
PHANTOM = ("phantom", "--residues", 20, "--voxel-size", 4, "--resolution", 12, "--margin", 5)
SHORT = ("--patch", SIDE, "--minutes", 0.001)
GRID = ("nstart", "m", "cell", "origin")
OUTPUTS = (".mrc", ".json", "")
WARNING = ("denoise", "report", "mask", "prepare", "finetune")  # of what was found of the pair
NOT_ENOUGH = "expected a particle large enough"


def argv(command, inputs: Inputs, weights):
    """The command line, run in the folder above that of the inputs."""
    halves = inputs.halves
    mask = () if inputs.mask is None or command in ("mask", "prepare") else ("--mask", inputs.mask)
    pair = ("beside/half_map_1.mrc", "beside/half_map_2.mrc")
    file, curve, folder = (f"out{suffix}" if inputs.output is None else inputs.output for suffix in OUTPUTS)
    words = {
        "denoise": ("denoise", *halves, "-o", file, "--weights", weights),
        "report": ("report", *halves, "--denoised", "denoised.mrc", "-o", folder),
        "check": ("check", *halves, "--json", curve),
        "fsc": ("fsc", *halves, "--json", curve),
        "mask": ("mask", *halves, "-o", file),
        "prepare": ("prepare", inputs.folder, "beside", "-o", folder, "--patch", 16),
        "finetune": ("finetune", *halves, "-o", folder, "--weights", weights, *SHORT),
        "denoise one map": ("denoise", halves[1], "-o", file, "--weights", weights),
        "report of it": ("report", *pair, "--denoised", halves[1], "-o", "out"),
        "classify": ("classify", halves[1], "-o", file, "--weights", weights),
        "simulate": ("simulate", *PHANTOM, "--noise-map", halves[1], "-o", "out"),
    }[command]
    return [str(word) for word in (*words, *mask, *inputs.options)]


def write_beside(folder, inputs):
    """Another sound entry, and a denoised map; all on the grid of half-map 1, as far as it has one."""
    raw, order = header_of(inputs.half_map_1)
    fields = {name: struct.unpack_from(order + FIELDS[name][1], raw, FIELDS[name][0]) for name in GRID}
    (folder / "beside").mkdir()
    first, second = half_maps(seed=7)
    arrays = {"beside/half_map_1.mrc": first, "beside/half_map_2.mrc": second, "denoised.mrc": sum(half_maps()) / 2}
    for name, array in arrays.items():
        set_fields(write_map(folder / name, array), **fields)


@contextlib.contextmanager
def limited(seconds):
    """No command may wait for ever."""

    def end(*_):
        raise AssertionError(f"takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(words, stdout=None):
    """The command in this process."""
    out = io.StringIO() if stdout is None else open(stdout, "w")  # noqa: SIM115 - closed below
    err = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limited(SECONDS):
        try:
            status = cli.main(words)
        except SystemExit as stop:  # argparse
            status = stop.code
    printed = "" if stdout else out.getvalue()
    with contextlib.suppress(OSError):
        out.close()
    return Outcome(status or 0, printed, err.getvalue())


@dataclass(frozen=True)
class Run:
    """What a command was given and gave back, and the names of what it made."""

    command: str
    inputs: Inputs
    outcome: Outcome
    made: set[str]

    @property
    def mistaken_options(self):
        """Whether what is wrong, if anything is, is in the command line and not in a map."""
        return bool(self.inputs.options or self.inputs.output is not None or self.inputs.stdout)


class Bench:
    """Runs cases, beside the results of the sound pair.

    Args:
        folder: for the results of the sound pair.
        weights: of a small network.
        classifier: weights of a small classifier.
    """

    def __init__(self, folder: Path, weights: Path, classifier: Path):
        self.folder, self.weights, self.classifier = folder, weights, classifier

    def argv(self, command, inputs):
        """The command line, with the weights of the command's task."""
        return argv(command, inputs, self.classifier if command == "classify" else self.weights)

    @functools.cache  # noqa: B019 - as long as the process
    def sound_result(self, command, masked):
        """The map that a command makes of the sound pair."""
        folder = self.folder / f"{command} {masked}"
        folder.mkdir()
        inputs = write_inputs(folder / "inputs")
        if masked:
            inputs.add_mask()
        with contextlib.chdir(folder):
            outcome = run(self.argv(command, inputs))
        assert outcome.status == 0, outcome.err
        return read(folder / "out.mrc")

    def check(self, case, command, folder):
        """Raises AssertionError unless what must happen does; run in the folder."""
        inputs = write_inputs(folder / "inputs")
        case.change(inputs)
        write_beside(folder, inputs)
        before = tree(folder)
        outcome = run(self.argv(command, inputs), inputs.stdout)
        after = tree(folder)
        assert {name: after.get(name) for name in before} == before, "something that was there has changed"
        created = {name for name in after if name not in before}
        assert not [name for name in created if ".crefjax-" in name or "tmp" in name], created
        assert "Traceback" not in outcome.text
        judge = {
            Refused: check_refused,
            NotAPair: check_no_pair,
            Accepted: self._check_accepted,
            NotSilent: check_not_silent,
            Orderly: check_orderly,
        }[type(case.expected)]
        judge(case.expected, Run(command, inputs, outcome, created))

    def _check_accepted(self, expected, run):
        command, inputs, outcome = run.command, run.inputs, run.outcome
        if expected.or_refused and (outcome.status == 2 or "skipped" in outcome.err):
            check_orderly(expected, run)
            return
        if command == "finetune":  # the box is too small to train on, which shows once all else is found right
            assert NOT_ENOUGH in error_line(outcome.err, outcome.status)
            assert not run.made
        else:
            assert outcome.status == 0, outcome.text
            assert {name.split("/")[0].split(".")[0] for name in run.made} == {"out"}
        if command in WARNING or "hot_voxel" in (expected.findings or ()) or command == "check":
            check_words(expected, outcome.text)
        kind = {"like_sound": expected.like_sound}
        if command == "check":
            check_findings(expected, outcome)
        elif command == "fsc":
            check_curve(Path("out.json"), inputs)
        elif command == "prepare":
            assert "skipped" not in outcome.err, outcome.err
            check_dataset(Path("out"), inputs, **kind)
        elif command == "report":
            check_report(Path("out"), inputs, **kind)
        elif command in ("denoise", "denoise one map", "mask", "classify"):
            half_map = inputs.halves[command in SINGLE]
            scaled = {"least": 0.9} if command == "mask" else {"scale": inputs.scale}
            sound = self.sound_result(command, inputs.mask is not None) if expected.like_sound else None
            check_map(Path("out.mrc"), sound, inputs, half_map, **kind, **scaled)


def check_words(expected, text):
    for word in expected.words:
        assert word in text, f"{word!r} is not in: {text}"


def check_refused(expected, run):
    if run.command == "prepare" and not run.mistaken_options:
        assert run.outcome.status == 0, run.outcome.err
        message = left_out(run.outcome.err, Path("out"))
    else:
        message = error_line(run.outcome.err, run.outcome.status)
        assert run.inputs.stdout or not run.made, run.made
    check_words(expected, message)


def check_no_pair(expected, run):
    outcome = run.outcome
    if run.command in ("check", "fsc", "mask"):
        assert outcome.status == (1 if run.command == "check" else 0), outcome.text
        check_words(expected, outcome.out if run.command == "check" else outcome.err)
    else:
        check_refused(expected, run)
        assert "--insist" in outcome.err
    if run.command == "check":
        assert json.loads(Path("out.json").read_text())["pair"] is False
    elif run.command == "fsc":
        check_curve(Path("out.json"), run.inputs)


def check_findings(expected, outcome):
    found = json.loads(Path("out.json").read_text())
    kinds = {finding["kind"] for finding in found["findings"]}
    assert kinds == set(expected.findings or ()) or (expected.findings is None and "hot_voxel" not in kinds), (
        outcome.out
    )
    assert found["pair"] is True


def check_not_silent(expected, run):
    check_orderly(expected, run)
    if run.outcome.status != 2 and "skipped inputs: " not in run.outcome.err:
        check_words(expected, run.outcome.text if run.command == "check" else run.outcome.err)


def check_orderly(expected, run):
    outcome = run.outcome
    assert outcome.status in ((0, 1, 2) if run.command == "check" else (0, 2)), outcome.text
    if outcome.status == 2:
        error_line(outcome.err, outcome.status)
        assert not run.made, run.made
