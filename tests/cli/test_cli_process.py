"""The command in a process: speed of its help, exit status, files after an interruption."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import mrcfile
import pytest
from helpers.cli import densities, error_line, tree, write

COMMAND = [sys.executable, "-m", "crefjax"]


def process(*words, **more):
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=100, **more)


def test_help_imports_neither_jax_nor_scipy(workdir):
    program = (
        "import sys, crefjax.cli.main\n"
        "for words in (['--help'], ['denoise', '--help'], ['--version']):\n"
        "    try: crefjax.cli.main.main(words)\n"
        "    except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'jax', 'flax', 'orbax', 'scipy', 'matplotlib'}))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_denoise_imports_matplotlib_only_for_a_report(pair, weights, workdir):
    program = "import sys; from crefjax.cli.main import main; main(sys.argv[1:]); print('matplotlib' in sys.modules)"
    words = [sys.executable, "-c", program, "denoise", *pair, "-o", "out.mrc", "--weights", weights]
    for more, imported in (["--local"], "False"), (["--overwrite", "--report", "findings"], "True"):
        ended = subprocess.run([*words, *more], capture_output=True, text=True, check=True)
        assert ended.stdout.splitlines()[-1] == imported


def test_help_answers_in_under_a_second(workdir):
    times = []
    for _ in range(3):
        start = time.monotonic()
        assert process("--help").returncode == 0
        times.append(time.monotonic() - start)
    assert min(times) < 1


@pytest.mark.parametrize("command", ["denoise", "fsc", "mask", "weights"])
def test_help_is_printed_with_status_0(command, workdir):
    ended = process(command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert command in ended.stdout.splitlines()[0]


def test_help_has_defaults_and_units(workdir):
    text = " ".join(process("mask", "--help").stdout.split())
    assert text.count("(default: ") >= 4
    assert "Å" in text
    assert "voxels" in text
    text = " ".join(process("denoise", "--help").stdout.split())
    assert text.count("(default: ") >= 4
    assert "GiB" in text


@pytest.mark.parametrize("terminal", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}], ids=["C", "ascii"])
def test_terminal_without_the_angstrom_sign(terminal, pair, workdir):
    for words in (["mask", "--help"], ["mask", *pair, "-o", "m.mrc"]):
        ended = process(*words, env={**os.environ, **terminal})
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr


def test_refusal_is_one_line_and_status_2(pair, workdir):
    pair[1].write_bytes(pair[1].read_bytes()[:2000])
    before = tree(workdir)
    ended = process("fsc", *pair, "--json", "fsc.json")
    assert error_line(ended.stderr, ended.returncode)
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
    assert tree(workdir) == before


def test_success_is_status_0(pair, workdir):
    ended = process("fsc", *pair, "--json", "fsc.json")
    assert ended.returncode == 0
    assert len(json.loads((workdir / "fsc.json").read_text())["fsc"]) == 12


def test_closed_pipe_gives_no_traceback(pair, workdir):
    """The pipe is closed as in `crefjax fsc A B | head -1`, with and without a buffer of Python before it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [*COMMAND, "fsc", *pair], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        running.stdout.close()
        err = running.stderr.read()
    assert "Traceback" not in err
    assert "Exception" not in err


def test_file_names_that_are_not_utf8(pair, workdir):
    odd = os.fsdecode(os.fsencode(str(workdir)) + b"/\xff.mrc")
    ended = subprocess.run([*COMMAND, "fsc", pair[0], odd], capture_output=True, timeout=100)
    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Write a pair of 48³ noisy maps; compressing the output with bzip2 takes long enough to be interrupted."""
    folder = tmp_path_factory.mktemp("large")
    return [write(folder / f"h{n}.mrc", data) for n, data in enumerate(densities((48, 48, 48)), 1)]


def interrupted(words, folder, sign, ready):
    """Send the signal as soon as `ready` returns True; return status and error output."""
    with subprocess.Popen([*COMMAND, *map(str, words)], cwd=folder, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 60
        while not ready(running) and running.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        running.send_signal(sign)
        err = running.stderr.read()
        running.wait(60)
    return running.returncode, err


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interruption_while_writing_leaves_no_file(sign, large, weights, workdir):
    words = ["denoise", *large, "-o", "out.mrc.bz2", "--weights", weights]
    status, err = interrupted(words, workdir, sign, lambda running: any(workdir.iterdir()))
    assert status != 0
    assert "Traceback" not in err
    assert tree(workdir) == {}


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interruption_while_computing_leaves_no_file(sign, large, imported, workdir):
    def announced(running):
        return "peak memory" in running.stderr.readline()

    words = ["denoise", *large, "-o", "out.mrc", "--weights", imported]
    status, err = interrupted(words, workdir, sign, announced)
    assert status != 0
    assert "Traceback" not in err
    assert tree(workdir) == {}


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
def test_interruption_during_startup_takes_effect(sign, pair, weights, workdir):
    """The command stops although exceptions in a callback of the garbage collector, such as that of JAX, are lost."""
    before = tree(workdir)
    words = [str(int(sign)), "denoise", *pair, "-o", "out.mrc", "--weights", weights]
    ended = subprocess.run(
        [sys.executable, "-c", WITH_A_SIGNAL, *map(str, words)], capture_output=True, text=True, timeout=100
    )
    assert ended.returncode != 0
    assert "crefjax/" not in ended.stderr
    assert tree(workdir) == before


def test_killed_process_keeps_the_old_output(large, weights, workdir):
    """SIGKILL may leave a hidden file, but never an incomplete output."""
    (workdir / "out.mrc.bz2").write_text("earlier output")
    words = ["denoise", *large, "-o", "out.mrc.bz2", "--weights", weights, "--overwrite"]
    status, _ = interrupted(words, workdir, signal.SIGKILL, lambda running: len(list(workdir.iterdir())) > 1)
    assert status == -signal.SIGKILL
    assert (workdir / "out.mrc.bz2").read_text() == "earlier output"
    assert all(path.name.startswith(".") for path in workdir.iterdir() if path.name != "out.mrc.bz2")


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2), (0, 1, 2)])
def test_closed_standard_streams_do_not_damage_the_output(workdir, closed):
    """Some schedulers close them; a map must not be opened under the number of a standard stream."""
    for number, half in enumerate(densities(), 1):
        write(workdir / f"half_{number}.mrc", half)
    shell = shlex.join([*COMMAND, "mask", "half_1.mrc", "half_2.mrc", "-o", "mask.mrc"])
    shell += "".join(f" {number}{'<' if number == 0 else '>'}&-" for number in closed)
    ended = subprocess.run(["sh", "-c", shell], cwd=workdir, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert mrcfile.read(workdir / "mask.mrc").max() == 1
    ended = subprocess.run(["sh", "-c", shell], cwd=workdir, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 2  # the mask exists
