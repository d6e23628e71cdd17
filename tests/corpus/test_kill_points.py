"""A hundred points at which denoise, prepare, train and fetch end: killed, told to end, or for want of space.

What was there stays as it was, what is there is whole, and the same command again ends as if nothing had been. There
are three hundred by `pytest tests/corpus --full`.
"""

import functools
import gzip

import numpy as np
import pytest
from corpus_material import half_maps, write_inputs, write_map
from helpers.archive import header, serving
from helpers.cli import error_line, run_crefjax, tree
from helpers.training_config import tiny_config
from helpers.training_run import arrays, left_over, losses, write_entry
from interruptions import ENDINGS, EndedError, interrupted

from crefjax.data.prepare import prepare

pytestmark = pytest.mark.slow

POINTS = {"denoise": 30, "prepare": 30, "fetch": 31, "train": 9}
ALL_POINTS = {"denoise": 45, "prepare": 90, "fetch": 45, "train": 120}  # about all that there are, of train a third
WORDS = {
    "denoise": ("denoise", "inputs/half_map_1.mrc", "inputs/half_map_2.mrc", "--halves", "-o", "out.mrc"),
    "prepare": ("prepare", "inputs", "other", "--patch", 16, "--validation", 0.5, "-o", "out"),
    "fetch": ("fetch", "EMD-1234", "-o", "out"),
    "train": ("train", "--config", "tiny.py", "--workdir", "out"),
}


def pytest_generate_tests(metafunc):
    if "point" in metafunc.fixturenames:
        counts = ALL_POINTS if metafunc.config.getoption("--full", default=False) else POINTS
        chosen = [(command, (number, count)) for command, count in counts.items() for number in range(count)]
        ids = [f"{command} {number} of {count}" for command, (number, count) in chosen]
        metafunc.parametrize(("command", "point"), chosen, ids=ids)


def at_point(point, changes):
    """Number of the change at which a run ends, evenly over all of them, and how, in turn."""
    number, count = point
    return 1 + number * changes // count, ENDINGS[number % len(ENDINGS)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An archive laid out as EMDB's."""
    root = tmp_path_factory.mktemp("archive")
    base = "/structures/EMD-1234"
    files = {f"{base}/header/emd-1234.xml": header(1234)}
    for number, half in enumerate(half_maps(), 1):
        content = gzip.compress(write_map(root / f"{number}.map", half).read_bytes(), mtime=0)
        files[f"{base}/other/emd_1234_half_map_{number}.map.gz"] = content
    files[f"{base}/masks/emd_1234_msk_1.map"] = write_map(root / "mask.map", np.ones((24,) * 3)).read_bytes()
    with serving(files) as archive:
        yield archive.url


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Two entries, a dataset and a config."""
    folder = tmp_path_factory.mktemp("material")
    write_inputs(folder / "inputs")
    (folder / "other").mkdir()
    for number, half in enumerate(half_maps(seed=7), 1):
        write_map(folder / "other" / f"half_map_{number}.mrc", half)
    entries = [write_entry(folder / "entries" / f"e{number}", (16, 16, 32), seed=number) for number in range(2)]
    prepare(entries, folder / "dataset", patch=16, stride=16, dtype="float32", validation=0.5)
    (folder / "tiny.py").write_text(tiny_config(epochs=2, threads=1, every_steps=1))
    return folder


@pytest.fixture
def here(material, monkeypatch):
    """The working directory: the inputs, which stay as they are."""
    before = tree(material)
    monkeypatch.chdir(material)
    yield
    assert tree(material) == before


@pytest.fixture(scope="module")
def place(weights, server, tmp_path_factory):
    """Gives a new folder for what a command writes, and its command line."""
    more = {"denoise": ("--weights", weights), "fetch": ("--base-url", server)}

    def make(command):
        folder = tmp_path_factory.mktemp(command)
        *words, output = WORDS[command]
        return folder, (*words, folder / output, *more.get(command, ()))

    return make


@pytest.fixture(scope="module")
def whole(place):
    """The folder of a run that was not ended, and how often it changed the disk, by command."""

    @functools.cache
    def run(command):
        folder, words = place(command)
        with interrupted(folder) as disk:
            outcome = run_crefjax(*words)
        assert outcome.status == 0, outcome.err
        assert len(ENDINGS) * disk.count >= POINTS[command], "too few changes for as many points"
        return folder, disk.count

    return run


def continued(name):
    """What `crefjax fetch` received of a file, and what it must know to continue."""
    return name.endswith((".part", ".json"))


def hidden(name):
    """Files that the project documents as unfinished; Orbax's own are named otherwise."""
    return ".crefjax-" in name or "orbax" in name or name.endswith(".tmp")


@pytest.mark.parametrize("command", POINTS)
def test_two_runs_give_the_same(command, place, whole, here):
    folder, words = place(command)
    assert run_crefjax(*words).status == 0
    check_whole(command, folder, whole(command)[0])


def test_what_is_there_is_whole_and_the_rest_is_made_up_for(command, point, place, whole, here):
    (folder, words), (right, changes) = place(command), whole(command)
    at, ending = at_point(point, changes)
    older = command == "denoise" and at % 2 == 0
    if older:
        write_map(folder / "out.mrc", half_maps()[0])
        words = (*words, "--overwrite")
    before = tree(folder)
    outcome = run_until(folder, at, ending, words)
    if isinstance(outcome, EndedError):
        assert outcome.args == {"killed": (), "terminated": (143,)}[ending]
    elif ending == "full" and outcome.status:
        assert "space" in error_line(outcome.err, outcome.status).lower()
    else:
        assert outcome.status == (143 if ending == "terminated" else 0), outcome.err
    check_left(command, ending, before, tree(folder), tree(right))
    outcome = run_crefjax(*words, *(("--overwrite",) if command == "denoise" and not older else ()))
    assert outcome.status == 0, outcome.err
    check_whole(command, folder, right)


def test_training_on_a_full_disk_leaves_no_unfinished_checkpoint(place, here):
    folder, words = place("train")
    outcome = run_until(folder, 35, "full", words)  # within a checkpoint
    assert "space" in error_line(outcome.err, outcome.status).lower()
    assert {name for name in tree(folder) if hidden(name)} == set()


def run_until(folder, at, ending, words):
    """What a command gave back, or with what its process ended before."""
    try:
        with interrupted(folder, at, ending):
            return run_crefjax(*words)
    except EndedError as end:
        return end


def check_left(command, ending, before, after, expected):
    """What is there is whole; what is unfinished is there only if the process was killed, or can be continued."""
    left = {name for name in after if hidden(name) and not (command == "fetch" and continued(name))}
    assert left == set() or ending == "killed", left
    if command != "train":  # whose files grow
        seen = {name: content for name, content in after.items() if not any(hidden(part) for part in parts(name))}
        assert set(before) <= set(seen)
        changed = {name: content for name, content in seen.items() if before.get(name) != content}
        assert {name: expected.get(name) for name in changed} == changed


def parts(name):
    return name.split("/")


def check_whole(command, folder, expected):
    """A folder is as that of the run that was not ended."""
    if command != "train":
        found, right = ({n: c for n, c in tree(root).items() if not hidden(n)} for root in (folder, expected))
        assert found == right
        return
    assert losses(folder / "out") == losses(expected / "out")
    for name in ("last", "best"):
        found, right = arrays(folder / "out" / name), arrays(expected / "out" / name)
        assert found.keys() == right.keys()
        assert all(np.array_equal(found[key], right[key]) for key in right)
    assert left_over(folder / "out") == []
