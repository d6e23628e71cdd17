"""Training by several processes over the loopback address: the same losses, one checkpoint, one end."""

import signal
import socket
import time

import numpy as np
import pytest
from helpers.training_config import tiny_config
from helpers.training_run import arrays, left_over, losses, prepare, rows, start, write_entry

from crefjax.errors import UserError
from crefjax.training.processes import Launch, Processes, ShareOfBatches, find_launch
from crefjax.training.task import NamedBatch

STEPS = 8
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_NUM_TASKS": "2",
}


def test_a_process_on_its_own_joins_nobody():
    assert find_launch(None, None, None, {}) is None
    assert find_launch(None, None, None, SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert find_launch("node:1234", 1, 0, {}) is None


def test_processes_of_a_slurm_step_are_found():
    assert find_launch(None, None, None, SLURM) == Launch(None, None, None, None)


def test_a_batch_script_without_srun_is_a_process_on_its_own():
    batch = {name: value for name, value in SLURM.items() if "STEP" not in name} | {"SLURM_NTASKS": "2"}
    assert find_launch(None, None, None, batch) is None


@pytest.mark.parametrize(
    ("visible", "tasks", "devices"),
    [
        ("0,1,2,3", "1(x2)", [0, 1, 2, 3]),  # one task on a node takes all its GPUs
        ("3", "4(x2)", [0]),  # each task sees its own alone
        ("0,1,2,3", "4(x2)", None),  # JAX takes one for each task
        ("", "1(x2)", None),
    ],
)
def test_gpus_of_a_slurm_task(visible, tasks, devices):
    environment = SLURM | {"CUDA_VISIBLE_DEVICES": visible, "SLURM_STEP_TASKS_PER_NODE": tasks}
    assert find_launch(None, None, None, environment).devices == devices


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("node:1", 2, None), "together, found only some"),
        (("node", 2, 0), "expected HOST:PORT"),
        (("node:1", 2, 2), "from 0 to below the 2 processes, found 2"),
    ],
)
def test_invalid_processes_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        find_launch(*words, {})


def test_a_batch_that_does_not_divide_is_refused():
    assert Processes(1, 3).local_batch(6) == 2
    with pytest.raises(UserError, match="found 7 samples for 3 processes; use 6"):
        Processes(0, 3).local_batch(7)


def test_shares_of_whole_batches_are_parts_of_each():
    batches = [
        NamedBatch({"x": np.arange(first, last)}, tuple(map(str, range(first, last))))
        for first, last in ((0, 6), (6, 11))
    ]
    shares = [list(ShareOfBatches(iter(batches), Processes(index, 3), 6)) for index in range(3)]
    assert [[share.batch["x"].tolist() for share in part] for part in shares] == [
        [[0, 1], [6, 7]],
        [[2, 3], [8, 9]],
        [[4, 5], [10]],
    ]
    assert shares[2][1].entries == ("10",)
    fourth = list(ShareOfBatches(iter([NamedBatch({"x": np.arange(3)}, ("a", "b", "c"))]), Processes(3, 4), 4))
    assert fourth == []  # the others have all samples of a short batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset whose 11 held-out patches do not divide by the batch, and a config of two epochs of four steps."""
    folder = tmp_path_factory.mktemp("runs")
    entries = [write_entry(folder / "entries" / f"e{number}", (16, 16, 52), seed=number) for number in range(3)]
    prepare(entries, folder / "dataset", patch=16, stride=4, dtype="float32", validation=0.3)
    text = tiny_config(epochs=2, width=4, threads=1, every_steps=1).replace("c.batch = 2", "c.batch = 4")
    (folder / "tiny.py").write_text(text.replace("c.log_every", "c.epoch_steps = 4\n    c.log_every"))
    return folder


def environment(devices=1):
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}


def start_all(folder, workdir, count, *more):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--coordinator", f"127.0.0.1:{port}", "--processes", count]
    return [
        start(folder, workdir, *words, "--process-id", index, *more, environment=environment())
        for index in range(count)
    ]


def end_all(processes):
    """Exit status, and lines on standard error of crefjax itself, of every process."""
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, err.splitlines()) for process, err in zip(processes, errors, strict=True)]


@pytest.fixture(scope="module")
def whole(folder):
    """A run of one process with two devices."""
    process = start(folder, "whole", environment=environment(2))
    ((status, err),) = end_all([process])
    assert status == 0, err
    assert len(rows(folder / "whole")) == STEPS + 2
    return folder / "whole"


def check_same(workdir, whole):
    """Numbers of every line to 1e-5, each line once, and the weights.

    The gradient of the last bias is rounding alone, because no shell of the loss has the mean, and Adam scales it up.
    """
    found, expected = losses(workdir), losses(whole)
    assert [(row["kind"], row["step"]) for row in found] == [(row["kind"], row["step"]) for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys()
        for name in set(row) - {"kind", "entries"}:
            assert row[name] == pytest.approx(other[name], rel=1e-5, abs=1e-6), (row["step"], name)
    for name in ("best", "last"):
        first, second = arrays(workdir / name), arrays(whole / name)
        assert all(np.allclose(first[key], second[key], atol=1e-6) for key in second if key != "out/bias")
    assert left_over(workdir) == []


def wait_for_step(workdir, step, processes, limit=200):
    end = time.monotonic() + limit
    while not (workdir / "checkpoints" / str(step)).is_dir():
        assert time.monotonic() < end
        assert all(process.poll() is None for process in processes), end_all(processes)
        time.sleep(0.01)


@pytest.mark.slow
def test_two_processes_of_one_device_train_as_one_of_two(folder, whole):
    outcomes = end_all(start_all(folder, "two", 2))
    assert [status for status, _ in outcomes] == [0, 0], outcomes
    assert outcomes[0][1][0] == "2 processes train together"
    assert outcomes[1][1] == []  # the first one speaks for all
    check_same(folder / "two", whole)


STREAM = """
from crefjax.training.config import default


def get_config():
    c = default()
    c.batch, c.steps, c.epoch_steps, c.log_every = 4, 4, 4, 1
    c.network.depth, c.network.down_width, c.network.up_width, c.network.last_widths = 1, 4, 4, (4,)
    c.losses.cref_l1, c.losses.truth_l2 = 0.0, 1.0
    c.data.source, c.data.patch = "stream", 16
    stream = c.data.stream
    stream.phantoms, stream.held_out_phantoms, stream.held_out_samples = 1, 1, 5
    stream.voxel_size, stream.resolution = (1.5, 1.5), (2.5, 4.0)
    stream.entries, c.data.entries.folders, c.data.entries.held_out = 0.5, "entries/*", 0.0
    return c
"""


@pytest.mark.slow
def test_two_processes_simulate_and_cut_the_samples_of_one(folder):
    """The batches are of both kinds; of the last held-out batch, of one sample, the second process has none."""
    (folder / "stream.py").write_text(STREAM)
    words = ("--config", "stream.py")
    ((status, err),) = end_all([start(folder, "stream-one", *words, environment=environment(2))])
    assert status == 0, err
    outcomes = end_all(start_all(folder, "stream-two", 2, *words))
    assert [status for status, _ in outcomes] == [0, 0], outcomes
    check_same(folder / "stream-two", folder / "stream-one")


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_another_number_of_processes_resumes_it(folder, whole, request):
    """With --full four, which takes longer."""
    processes = start_all(folder, "killed", 2)
    wait_for_step(folder / "killed", 3, processes)
    processes[1].kill()
    start_of_wait = time.monotonic()
    (status, err), _ = end_all(processes)
    assert time.monotonic() - start_of_wait < 60
    assert status == 2
    (line,) = [line for line in err if line.startswith("crefjax")]
    assert (
        "of 2 has ended; training ends here too, and the same command resumes it" in line or "another process" in line
    )
    assert not any("Traceback" in line for line in err)
    if request.config.getoption("--full"):
        outcomes = end_all(start_all(folder, "killed", 4))
    else:
        outcomes = end_all([start(folder, "killed", environment=environment(2))])
    assert {status for status, _ in outcomes} == {0}, outcomes
    assert any("resuming from step" in line for line in outcomes[0][1])
    check_same(folder / "killed", whole)


@pytest.mark.slow
def test_the_loss_of_the_first_process_ends_the_others(folder):
    """By crefjax's line, or by JAX's own, which comes first where JAX notices first."""
    processes = start_all(folder, "first-killed", 2)
    wait_for_step(folder / "first-killed", 2, processes)
    processes[0].kill()
    start_of_wait = time.monotonic()
    _, (status, err) = end_all(processes)
    assert time.monotonic() - start_of_wait < 60
    assert status != 0
    ours = "has ended; training ends here too, and the same command resumes it"
    assert any(ours in line or "JAX distributed service detected fatal errors" in line for line in err), err
    assert not any("Traceback" in line for line in err)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_and_saves_all_and_one_process_resumes(folder, whole):
    processes = start_all(folder, "stopped", 2)
    wait_for_step(folder / "stopped", 2, processes)
    processes[1].send_signal(signal.SIGTERM)
    outcomes = end_all(processes)
    assert [status for status, _ in outcomes] == [143, 143], outcomes
    assert any("the same command resumes it" in line for line in outcomes[0][1])
    ((status, err),) = end_all([start(folder, "stopped", environment=environment(2))])
    assert status == 0, err
    check_same(folder / "stopped", whole)
