"""The processes that train together, on one or many machines, connected by `jax.distributed`.

Every process runs the same program on its part of each batch. Work that only one of them may do, such as writing files,
is left to the first. Decisions that depend on the clock or on a signal of one process are agreed on
(`step.Agreement`), because all must take the same steps.
"""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from crefjax.errors import UserError

HEARTBEAT_SECONDS = 20  # without a sign of life, after which a process counts as lost
_CONNECT_SECONDS, _END_SECONDS = 300, 60
_POLL_SECONDS = 1.0
_LOST_STATUS = 2
# Of the messages of JAX, gloo, and NCCL when another process is gone.
_LOST = re.compile(r"gloo|nccl|coordination|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|heartbeat|Barrier", re.I)
_RECORD = "crefjax/lost"


class Processes(NamedTuple):
    """This process among those that train together.

    Attributes:
        index: number of this process, from 0.
        count: number of processes.
    """

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.index == 0

    def local_batch(self, batch: int) -> int:
        """Return the samples of a batch that are those of each process.

        Raises:
            UserError: the batch does not divide among the processes.
        """
        if batch % self.count:
            near = max(1, batch // self.count) * self.count
            raise UserError(
                f"config: batch: expected a multiple of the number of processes, found {batch} samples for "
                f"{self.count} processes; use {near}, or another number of processes"
            )
        return batch // self.count


def current() -> Processes:
    """Return the place of this process among those that are connected."""
    import jax

    return Processes(jax.process_index(), jax.process_count())


def current_of_batch(batch: int) -> Processes:
    """Return the place of this process among those that are connected, each of which makes its part of every batch.

    Raises:
        UserError: the batch does not divide among them.
    """
    place = current()
    place.local_batch(batch)
    return place


def use_platform(platform: str) -> None:
    """Let JAX, which has not used a device yet, use those of one platform only.

    Args:
        platform: `cpu`, `gpu`, or empty for JAX's choice.
    """
    import jax

    if platform:
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(platform, platform))


class Launch(NamedTuple):
    """How a process finds the others.

    Attributes:
        coordinator: `HOST:PORT` of the first process; None if the cluster's environment gives it.
        count: number of processes; None likewise.
        index: number of this process; None likewise.
        devices: numbers of the GPUs for this process; None for JAX's choice.
    """

    coordinator: str | None
    count: int | None
    index: int | None
    devices: list[int] | None


def find_launch(coordinator: str | None, count: int | None, index: int | None, environment=os.environ) -> Launch | None:
    """Return how to find the other processes, or None if there are none.

    Args:
        coordinator: `HOST:PORT`, or None for a process of a SLURM step, or a process on its own.
        count: number of processes.
        index: number of this process.
        environment: variables, among them those of SLURM.

    Raises:
        UserError: some of the three are missing or invalid.
    """
    if (coordinator, count, index) != (None, None, None):
        if None in (coordinator, count, index):
            raise UserError(
                "processes: expected `coordinator`, `processes`, and `process_id` together, found only some of them; "
                "give all three, or none within a SLURM step"
            )
        if not re.fullmatch(r"\S+:\d{1,5}", coordinator):
            raise UserError(f"`coordinator`: expected HOST:PORT such as node1:12345, found {coordinator!r}; correct it")
        if count < 1 or not 0 <= index < count:
            raise UserError(
                f"`process_id`: expected a number from 0 to below the {count} processes, found {index}; correct it"
            )
        return Launch(coordinator, count, index, None) if count > 1 else None
    if not {"SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST"} <= environment.keys():
        return None
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or 1)
    return Launch(None, None, None, _slurm_devices(environment)) if tasks > 1 else None


def _slurm_devices(environment):
    """Return the GPUs of a SLURM task if it has all that it sees; None if several tasks see the same ones.

    By itself, JAX takes one GPU for each task, by the task's number on its node.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    count = len(visible.split(",")) if visible else 0
    alone = re.match(r"1(\(x\d+\))?$", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return list(range(count)) if count == 1 or (count and alone) else None


@contextmanager
def joined(launch: Launch | None, *, platform: str = "") -> Iterator[Processes]:
    """Connect this process to the others within the `with`, before JAX has used a device; yield its place among them.

    If another process is lost, or fails, this one prints one line and ends at once, whatever it is doing, with exit
    status 2. If this process fails, it ends at once too: it cannot wait for the others to end, because they wait for
    it.

    Args:
        launch: how to find the others; None for a process on its own.
        platform: `cpu`, `gpu`, or empty for JAX's choice.

    Raises:
        UserError: the others cannot be reached.
    """
    if launch is None:
        yield Processes()
        return
    place = _connect(launch, platform)
    watch = _Watch(place)
    try:
        yield place
        watch.stop()
    except BaseException as error:
        watch.fail(error)
        raise
    _disconnect(place)


def _connect(launch, platform):
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # which JAX sets; what matters is reported in one line
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import jax

    # The loss of another process must be reported, not abort this one with a stack trace.
    jax.config.update("jax_enable_recoverability", True)
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # collectives of two steps must not overtake each other
    use_platform(platform)
    settings = {"local_device_ids": launch.devices} if launch.devices is not None else {}
    if launch.coordinator is not None:
        settings["cluster_detection_method"] = "deactivate"
        if launch.coordinator.startswith(("localhost:", "127.0.0.1:")):  # not reachable from other machines either
            settings["coordinator_bind_address"] = launch.coordinator
    try:
        jax.distributed.initialize(
            launch.coordinator,
            launch.count,
            launch.index,
            initialization_timeout=_CONNECT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_END_SECONDS,
            **settings,
        )
        return Processes(jax.process_index(), jax.process_count())
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())[:160]
        raise UserError(
            f"{launch.coordinator or 'SLURM'}: the processes cannot be connected ({text}); check that all are running, "
            "and that the port of the first is free and reachable"
        ) from error


def _disconnect(place):
    """Wait until all processes are done, and end the connection: the first one last, or the others would abort."""
    import jax

    client, end = _client(), time.monotonic() + _END_SECONDS
    with suppress(RuntimeError, ValueError):
        client.wait_at_barrier("crefjax/end", 1000 * _END_SECONDS)
        while place.is_first and len(client.get_live_nodes(list(range(place.count)))) > 1 and time.monotonic() < end:
            time.sleep(0.05)
    jax.distributed.shutdown()


def _client():
    from jax._src.distributed import global_state  # the public interface has neither barriers nor live processes

    return global_state.client


class _Watch:
    """A thread that ends this process when another one is lost: a collective of NCCL would wait for it forever."""

    def __init__(self, place):
        self._place, self._client, self._stopped = place, _client(), threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="watch processes", daemon=True).start()

    def stop(self):
        self._stopped.set()

    def fail(self, error):
        """End this process after an error; one that comes of a lost process is reported as such."""
        self.stop()
        if _is_about_a_lost_process(error):
            self._end(self._lost_line("another process"), _LOST_STATUS)
        if isinstance(error, UserError):
            self._end(f"crefjax: process {self._place.index} of {self._place.count}: {error}", _LOST_STATUS)
        if isinstance(error, Exception):
            sys.excepthook(type(error), error, error.__traceback__)
            self._end("", 1)

    def _run(self):
        everyone = list(range(self._place.count))
        while not self._stopped.wait(_POLL_SECONDS):
            try:
                self._end_if_another_failed()
                live = self._client.get_live_nodes(everyone)
            except Exception:  # the first process, which knows of the others, is gone
                live = everyone[1:]
            missing = [number for number in everyone if number not in live]
            if missing and not self._stopped.is_set():
                self._end(self._lost_line(f"process {', '.join(map(str, missing))}"), _LOST_STATUS)

    def _end_if_another_failed(self):
        try:
            self._client.key_value_try_get(_RECORD)
        except Exception:  # there is no record
            return
        if not self._stopped.is_set():
            os._exit(_LOST_STATUS)

    def _lost_line(self, who):
        return (
            f"crefjax: {who} of {self._place.count} has ended; training ends here too, and the same command resumes it "
            "from the newest checkpoint"
        )

    def _end(self, line, status):
        """Print a line, unless another process has printed why the job ends, and end at once."""
        with self._lock:
            if line and self._is_the_first_to_say():
                with suppress(OSError, ValueError):
                    print(line, file=sys.stderr, flush=True)
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            if self._place.is_first:  # the others learn from it that the job ends, and would abort without it
                time.sleep(2 * _POLL_SECONDS)
            os._exit(status)

    def _is_the_first_to_say(self):
        try:
            self._client.key_value_set(_RECORD, str(self._place.index))
        except Exception as error:
            return "ALREADY_EXISTS" not in str(error)
        return True


def _is_about_a_lost_process(error):
    """Return whether an exception, or its cause, is JAX's, gloo's, or NCCL's about another process."""
    while error is not None:
        if isinstance(error, (RuntimeError, ValueError)) and _LOST.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def gather(value: Any, place: Processes) -> list:
    """Return the values of all processes, in their order; all must call it.

    Args:
        value: anything that JSON can represent.
        place: this process.
    """
    if place.count == 1:
        return [value]
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = process_allgather(np.array([content.size], np.int32)).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: content.size] = content
    rows = process_allgather(padded)
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes, strict=True)]


class ShareOfBatches:
    """The samples of one process, of an iterator that gives whole batches in every process."""

    def __init__(self, batches, place: Processes, batch: int):
        """Take a share.

        Args:
            batches: iterator of `NamedBatch`.
            place: this process.
            batch: samples of all processes in a batch; the last one may be shorter.
        """
        self._batches, size = iter(batches), place.local_batch(batch)
        self._own = slice(place.index * size, (place.index + 1) * size)
        for name in ("get_state", "set_state", "close"):
            if hasattr(batches, name):
                setattr(self, name, getattr(batches, name))

    def __iter__(self):
        return self

    def __next__(self):
        import jax

        samples = next(self._batches)
        if not (entries := samples.entries[self._own]):  # of a last, short batch, others have all samples
            raise StopIteration
        return samples._replace(batch=jax.tree.map(lambda leaf: leaf[self._own], samples.batch), entries=entries)
