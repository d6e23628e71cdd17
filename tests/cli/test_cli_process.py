"""The command as a process of its own: speed of its help, exit status, what an interruption leaves."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import mrcfile
import pytest
from helpers.cli import densities, one_line, tree, write

COMMAND = [sys.executable, "-m", "crefjax"]


def process(*words, **more):
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=100, **more)


def test_help_loads_neither_jax_nor_numpys_friends(here):
    program = (
        "import sys, crefjax.cli.main\n"
        "for words in (['--help'], ['denoise', '--help'], ['--version']):\n"
        "    try: crefjax.cli.main.main(words)\n"
        "    except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'jax', 'flax', 'orbax', 'scipy', 'matplotlib'}))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_help_answers_in_under_a_second(here):
    times = []
    for _ in range(3):
        start = time.monotonic()
        assert process("--help").returncode == 0
        times.append(time.monotonic() - start)
    assert min(times) < 1


@pytest.mark.parametrize("command", ["denoise", "fsc", "mask", "weights"])
def test_help_is_printed_and_succeeds(command, here):
    ended = process(command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert command in ended.stdout.splitlines()[0]


def test_defaults_and_units_stand_in_the_help(here):
    text = " ".join(process("mask", "--help").stdout.split())
    assert text.count("(default: ") >= 4
    assert "Å" in text
    assert "voxels" in text
    text = " ".join(process("denoise", "--help").stdout.split())
    assert text.count("(default: ") >= 4
    assert "GiB" in text


@pytest.mark.parametrize("terminal", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}], ids=["C", "ascii"])
def test_terminal_without_the_letter_for_angstrom(terminal, pair, here):
    for words in (["mask", "--help"], ["mask", *pair, "-o", "m.mrc"]):
        ended = process(*words, env={**os.environ, **terminal})
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr


def test_refusal_is_one_line_and_status_2(pair, here):
    pair[1].write_bytes(pair[1].read_bytes()[:2000])
    before = tree(here)
    ended = process("fsc", *pair, "--json", "fsc.json")
    assert one_line(ended.stderr, ended.returncode)
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
    assert tree(here) == before


def test_success_is_status_0(pair, here):
    ended = process("fsc", *pair, "--json", "fsc.json")
    assert ended.returncode == 0
    assert len(json.loads((here / "fsc.json").read_text())["fsc"]) == 12


def test_closed_pipe_is_no_traceback(pair, here):
    """As in `crefjax fsc A B | head -1`, with and without Python's own buffer before the pipe."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [*COMMAND, "fsc", *pair], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        running.stdout.close()
        err = running.stderr.read()
    assert "Traceback" not in err
    assert "Exception" not in err


def test_file_names_that_are_no_utf8(pair, here):
    odd = os.fsdecode(os.fsencode(str(here)) + b"/\xff.mrc")
    ended = subprocess.run([*COMMAND, "fsc", pair[0], odd], capture_output=True, timeout=100)
    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A pair of 48³ noisy maps: writing it with bzip2 takes long enough to be interrupted."""
    folder = tmp_path_factory.mktemp("large")
    return [write(folder / f"h{n}.mrc", data) for n, data in enumerate(densities((48, 48, 48)), 1)]


def interrupted(words, folder, sign, ready):
    """Sends the signal as soon as `ready` says so; gives status and error output."""
    with subprocess.Popen([*COMMAND, *map(str, words)], cwd=folder, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 60
        while not ready(running) and running.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        running.send_signal(sign)
        err = running.stderr.read()
        running.wait(60)
    return running.returncode, err


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interruption_while_writing_leaves_nothing(sign, large, weights, here):
    words = ["denoise", *large, "-o", "out.mrc.bz2", "--weights", weights]
    status, err = interrupted(words, here, sign, lambda running: any(here.iterdir()))
    assert status != 0
    assert "Traceback" not in err
    assert tree(here) == {}


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interruption_while_computing_leaves_nothing(sign, large, imported, here):
    def announced(running):
        return "peak memory" in running.stderr.readline()

    words = ["denoise", *large, "-o", "out.mrc", "--weights", imported]
    status, err = interrupted(words, here, sign, announced)
    assert status != 0
    assert "Traceback" not in err
    assert tree(here) == {}


WITH_A_SIGNAL = """
import gc, os, sys
from crefjax.cli.main import main
sent = []
def send(phase, info):
    if "jax" in sys.modules and not sent:
        sent.append(True)
        os.kill(os.getpid(), int(sys.argv[1]))
        len(sent)
gc.callbacks.append(send)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interruption_while_starting_is_not_lost(sign, pair, weights, here):
    """What is raised in a garbage collector's callback is lost, and JAX has one: the command must stop all the same."""
    before = tree(here)
    words = [str(int(sign)), "denoise", *pair, "-o", "out.mrc", "--weights", weights]
    ended = subprocess.run(
        [sys.executable, "-c", WITH_A_SIGNAL, *map(str, words)], capture_output=True, text=True, timeout=100
    )
    assert ended.returncode != 0
    assert "crefjax/" not in ended.stderr
    assert tree(here) == before


def test_process_that_is_killed_while_writing_keeps_the_old_output(large, weights, here):
    """SIGKILL may leave a hidden file, never half an output under its name."""
    (here / "out.mrc.bz2").write_text("the older one")
    words = ["denoise", *large, "-o", "out.mrc.bz2", "--weights", weights, "--overwrite"]
    status, _ = interrupted(words, here, signal.SIGKILL, lambda running: len(list(here.iterdir())) > 1)
    assert status == -signal.SIGKILL
    assert (here / "out.mrc.bz2").read_text() == "the older one"
    assert all(path.name.startswith(".") for path in here.iterdir() if path.name != "out.mrc.bz2")


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2), (0, 1, 2)])
def test_closed_standard_streams_lose_nothing(here, closed):
    """As under some schedulers; a map must not be opened under the number of a standard stream."""
    for number, half in enumerate(densities(), 1):
        write(here / f"half_{number}.mrc", half)
    shell = shlex.join([*COMMAND, "mask", "half_1.mrc", "half_2.mrc", "-o", "mask.mrc"])
    shell += "".join(f" {number}{'<' if number == 0 else '>'}&-" for number in closed)
    ended = subprocess.run(["sh", "-c", shell], cwd=here, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert mrcfile.read(here / "mask.mrc").max() == 1
    ended = subprocess.run(["sh", "-c", shell], cwd=here, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 2  # it is there already
