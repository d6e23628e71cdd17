"""The job scripts are valid shell, call what exists, and do what they say; SLURM's own programs are stood in for."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from experiments.document_commands import parse

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "experiments/slurm").glob("*.sh"))
OPTIONS = {  # of sbatch, as its manual has them
    *("job-name", "cpus-per-task", "mem", "time", "requeue", "open-mode", "ntasks-per-node", "signal"),
}
JOB = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16", "SLURM_CPUS_PER_TASK": "4", "SLURM_JOB_ID": "77"}


def test_there_are_scripts():
    assert {path.name for path in SCRIPTS} == {"settings.sh", "prepare.sh", "join.sh", "train.sh"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid_shell(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path):
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck, which is not installed")
    done = subprocess.run(["shellcheck", "-x", path], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == ""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_directives_are_options_of_sbatch(path):
    for line in path.read_text().splitlines():
        if line.startswith("#SBATCH"):
            assert line.split()[1].removeprefix("--").split("=")[0] in OPTIONS, line


@pytest.fixture
def cluster(tmp_path):
    """A folder of programs that write down how they are called, and two entries; gives the environment."""
    programs = tmp_path / "bin"
    programs.mkdir()
    record = f'printf "%s\\n" "$(basename "$0") $(printf "%q " "$@")" >> {tmp_path}/calls\n'
    bodies = {
        "crefjax": record + 'exit "${STATUS:-0}"',
        "scontrol": record,
        "srun": record + 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"',
    }
    for name, body in bodies.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    for name in ("a", "b c"):
        (tmp_path / "entries" / name).mkdir(parents=True)
    settings = {"CREFJAX": f"{programs}/crefjax", "ENTRIES": f"{tmp_path}/entries", "DATASET": f"{tmp_path}/d"}
    return os.environ | JOB | settings | {"PATH": f"{programs}:{os.environ['PATH']}", "WORKDIR": f"{tmp_path}/run"}


def submit(name, cluster, tmp_path, *words, **more):
    """Run a script as a job; return the process when it has ended, and the words of what it called."""
    script = ["bash", ROOT / "experiments/slurm" / name, *words]
    done = subprocess.run(script, cwd=ROOT, env=cluster | more, capture_output=True, text=True, check=False, timeout=60)
    return done, called(tmp_path)


def called(tmp_path):
    return [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]


def test_an_array_prepares_a_part_in_each_task(cluster, tmp_path):
    done, calls = submit("prepare.sh", cluster, tmp_path)
    assert done.returncode == 0, done.stderr
    entries = [f"{tmp_path}/entries/a", f"{tmp_path}/entries/b c"]
    assert calls == [["crefjax", "prepare", *entries, "-o", f"{tmp_path}/d", "--part", "3/16", "--jobs", "4"]]
    parse(calls[0])
    _, calls = submit("prepare.sh", cluster, tmp_path, PARTS="20", SLURM_ARRAY_TASK_COUNT="1")
    assert "3/20" in calls[-1]


def test_the_parts_are_joined_by_the_same_command_without_part(cluster, tmp_path):
    submit("prepare.sh", cluster, tmp_path)
    done, (part, join) = submit("join.sh", cluster, tmp_path)
    assert done.returncode == 0, done.stderr
    at = part.index("--part")
    assert join == part[:at] + part[at + 2 :]
    parse(join)


def test_training_runs_as_a_step_on_all_nodes(cluster, tmp_path):
    done, (step, train) = submit("train.sh", cluster, tmp_path, "--config.batch=24")
    assert done.returncode == 0, done.stderr
    assert step[:2] == ["srun", "--kill-on-bad-exit=1"]
    assert train == [
        *("crefjax", "train", "--config=experiments/configs/paper.py", f"--workdir={tmp_path}/run"),
        *(f"--config.data.dataset.folder={tmp_path}/d", "--config.batch=24"),
    ]
    parse(train)


@pytest.mark.parametrize(("status", "requeued"), [("143", True), ("2", False), ("0", False)])
def test_training_that_was_stopped_by_a_signal_is_queued_again(cluster, tmp_path, status, requeued):
    done, calls = submit("train.sh", cluster, tmp_path, STATUS=status)
    assert done.returncode == int(status)
    assert (["scontrol", "requeue", "77"] in calls) == requeued
    assert (f"ended with status {status}" in done.stdout) == (status == "2")


def test_the_signal_before_the_end_reaches_the_training_which_may_save(cluster, tmp_path):
    saving = (
        "#!/bin/bash\ntrap 'sleep 0.3; echo saved; exit 143' TERM\ntouch started\nwhile true; do sleep 0.05; done\n"
    )
    (tmp_path / "bin/crefjax").write_text(saving.replace("started", f"{tmp_path}/started"))
    words = ["bash", ROOT / "experiments/slurm/train.sh"]
    process = subprocess.Popen(words, cwd=ROOT, env=cluster, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 143
    assert out.splitlines()[0] == "saved"
    assert called(tmp_path)[-1] == ["scontrol", "requeue", "77"]
