"""The parts, each in a process of its own, and the time that each has."""

import json
import os
import signal
import statistics
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from crefjax.io.files import read_json_lines
from experiments.gpu.benchmarks import FULL, SMOKE, Sizes, benchmarks
from experiments.gpu.packing import ARCHIVE, BEFORE, METRICS, Packer, newest_checkpoint
from experiments.gpu.processes import FAILED, ROOT, Ended, run_process
from experiments.gpu.results import Results
from experiments.gpu.settings import Settings, chosen

PARTS = ("tests", "benchmarks", "training")
LOG = "log.txt"
# 3D convolutions with the channels last, as the arrays are; without it XLA turns them around each convolution.
LAYOUT = "--xla_gpu_force_conv_nhwc=true"
_MACHINE_SECONDS = 60.0
_REHEARSAL_SHARE = 0.6  # of the time of the benchmarks
_LEAST_SECONDS = {"benchmark": 8.0, "training": 20.0}  # under which none is begun
_LONGEST_BENCHMARK = 60.0
# Before the end: when training ends by itself, when it is asked to, and when all is killed that is not done.
_ENDS_ITSELF, _ASKED, _KILLED = 16.0, 10.0, 3.0


def part_seconds(arguments, sizes: Sizes) -> tuple[float, float]:
    """The longest time of the tests, and of rehearsal and benchmarks together; training has what is left.

    Args:
        arguments: with `minutes` of all, `test_seconds` and `benchmark_seconds` that were asked for.
        sizes: with the shares of all that they are at most.
    """
    tests, measured = (share * 60 * arguments.minutes for share in sizes.shares)
    return min(arguments.test_seconds, tests), min(arguments.benchmark_seconds, measured)


@dataclass
class Work:
    """What is to be done, and how far it is.

    Attributes:
        arguments: of the command line.
        scratch: folder for what does not come back.
        sizes: of everything.
        results: known so far.
        environment: of the processes.
        end: Unix time.
        stop: the signal by which it was stopped, if any.
        failed: whether a part failed.
    """

    arguments: object
    scratch: Path
    sizes: Sizes
    results: Results
    environment: dict
    end: float
    stop: int | None = None
    failed: bool = False
    rows: list = field(default_factory=list)

    @classmethod
    def begin(cls, arguments, scratch: Path) -> "Work":
        """Make the folder; the time runs from now."""
        end = time.time() + 60 * arguments.minutes
        sizes = SMOKE if arguments.smoke else FULL
        sizes = sizes._replace(
            patch=arguments.patch or sizes.patch, batches=tuple(sorted(arguments.batches or sizes.batches))
        )
        arguments.output.mkdir(exist_ok=True)
        environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            # What one part compiled, the next takes from here.
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(scratch / "compiled"),
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
        }
        if arguments.smoke:
            environment |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
            environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
        for left in (LOG, METRICS, f"{ARCHIVE}*"):  # of a run that is replaced
            for one in arguments.output.glob(left):
                one.unlink()
        return cls(arguments, scratch, sizes, Results(arguments.output), environment, end)

    def do(self) -> int:
        """All parts; returns 0, 1 if one failed, or 128 and the signal that stopped it."""
        tests, measured = part_seconds(self.arguments, self.sizes)
        wanted = self.arguments.parts
        with self._stopped_by_signals():
            self._machine()
            if "tests" in wanted:
                self._tests(tests)
            if "benchmarks" in wanted:
                until = min(time.time() + measured, self.end)
                self._rehearse(min(time.time() + _REHEARSAL_SHARE * measured, self.end))
                self._benchmarks(until)
            if "training" in wanted:
                self._train()
        print((self.arguments.output / "results.md").read_text(encoding="utf-8"), flush=True)
        return 128 + self.stop if self.stop is not None else int(self.failed)

    def run(self, name: str, command: list, until: float, *, flags="", environment=None, counts=True, **more) -> Ended:
        """Run a part's process until a Unix time at the latest, and note how it ended.

        Args:
            name: of the part.
            command: of Python.
            until: Unix time.
            flags: further ones for XLA.
            environment: further variables.
            counts: whether its failure is one of the whole.
            more: for `run_process`.
        """
        if self.stop is not None:
            return Ended(FAILED, 0.0, "")
        self.results.part(name, "running")
        print(f"{name}: for {until - time.time():.0f} s at most", flush=True)
        flags = f"{self.environment.get('XLA_FLAGS', '')} {flags}".strip()
        ended = run_process(
            [sys.executable, *command],
            seconds=max(0.0, until - time.time()),
            log=self.arguments.output / LOG,
            environment=self.environment | {"XLA_FLAGS": flags} | (environment or {}),
            stopped=lambda: self.stop is not None,
            **more,
        )
        self.failed |= counts and ended.status == FAILED
        self.results.part(name, *ended)
        print(f"{name}: {ended.status} after {ended.seconds:.1f} s: {ended.said}", flush=True)
        return ended

    def _machine(self):
        ended = self.run("machine", ["-m", "experiments.gpu.machine"], min(self.end, time.time() + _MACHINE_SECONDS))
        with suppress(ValueError):
            self.results.content["machine"] = json.loads(ended.said)
            self.results.part("machine", ended.status, ended.seconds)

    def _tests(self, seconds):
        files = sorted(str(one.relative_to(ROOT)) for one in (ROOT / "tests").rglob("test_*_on_gpu.py"))
        # Warnings of other versions than the project's own are no failures here.
        options = ["-p", "no:cacheprovider", "-W", "default", "-v", "--durations=5"]
        # Most of their time is compiling, in which they do not disturb each other.
        options += ["-n", "0" if self.arguments.smoke else "4", "--dist", "loadfile"]
        command = ["-m", "pytest", *options, *files]
        more = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.run("tests", command, min(self.end, time.time() + seconds), environment=more)

    def _rehearse(self, until):
        """Growing batches; on a GPU the first also with the other layout of convolutions: the faster is kept."""
        if self.results.content["machine"].get("platform") != "gpu":
            return self._rehearsed(self.sizes.batches, "", until, faster=0.0)
        first, *larger = self.sizes.batches
        for flags in ("", LAYOUT):
            self._rehearsed([first], flags, until, faster=0.0)
        best = chosen(self.rows)
        if best and larger and not best["goes_on"]:
            self._rehearsed(larger, best["flags"], until, faster=best["per_second"])

    def _rehearsed(self, batches, flags, until, *, faster):
        """Rehearse some batches; what was found out before a failure counts."""
        if time.time() + _LEAST_SECONDS["benchmark"] > until:
            return
        named = f"rehearsal, batch {', '.join(map(str, batches))}" + (", channels last" if flags else "")
        output = self.scratch / f"rehearsal-{len(self.results.content['parts'])}.json"
        settings = self._settings(batches, output, until - 5)
        settings = replace(settings, few=self.sizes.few, steps=self.sizes.steps, faster=faster)
        settings.write(output.with_suffix(".settings"))
        command = ["-m", "experiments.gpu.rehearsal", output.with_suffix(".settings")]
        self.run(named, command, until, flags=flags, counts=not flags)
        rows = [row | {"flags": flags} for row in _read(output)]
        for row in rows:
            row["what"] += ", channels last" if flags else ""
        self.rows += rows
        self.results.add("rehearsal", rows)

    def _benchmarks(self, until):
        models = [path for path in self.arguments.models.rglob("*.gz") if path.is_file()]
        if self.arguments.smoke:
            models = sorted(models, key=lambda path: path.stat().st_size)[: self.sizes.few]
        for one in benchmarks(self.sizes, models):
            if time.time() + _LEAST_SECONDS["benchmark"] > until:
                self.results.part(one.name, "left out", 0.0, "no time was left")
                continue
            output = self.scratch / "benchmark.json"
            output.unlink(missing_ok=True)
            command = ["-m", f"experiments.benchmarks.{one.module}", *one.arguments, "-o", output]
            self.run(one.name, command, min(until, time.time() + _LONGEST_BENCHMARK))
            self.results.add("benchmarks", [one.told(row) for row in _read(output)])

    def _train(self):
        """Train; if that fails, once more with half the batch."""
        best = chosen(self.rows) or {}
        batch, state = best.get("batch", self.sizes.batches[0]), _from_root(self.arguments.state)
        for attempt, size in enumerate((batch, max(1, batch // 2))):
            name = "training" + (" again" if attempt else "")
            if self.end - _ENDS_ITSELF - time.time() < _LEAST_SECONDS["training"]:
                self.results.part(name, "left out", 0.0, "no time was left")
                return
            run = self.scratch / f"run-{attempt}"
            settings = replace(
                self._settings([size], run, self.end - _ENDS_ITSELF),
                state=state,
                anew=self.arguments.anew or attempt > 0,
                per_second=best.get("per_second", 0.0),
                few=self.sizes.few if self.arguments.smoke else 0,
            )
            settings.write(run.with_suffix(".settings"))
            packer = Packer(run, self.arguments.output)
            command = ["-m", "experiments.gpu.training", run.with_suffix(".settings")]
            more = {"flags": best.get("flags", ""), "tick": packer, "grace": _ASKED - _KILLED}
            ended = self.run(name, command, self.end - _ASKED, **more)
            packer.last()
            self._tell_training(run, ended)
            if ended.status != FAILED or self.stop is not None:
                return
            state = str(run / "checkpoints") if newest_checkpoint(run / "checkpoints") else state

    def _tell_training(self, run, ended):
        lines = read_json_lines(run / METRICS)
        rows = {row["kind"]: row for row in lines}
        told = {"status": ended.status, "patch": self.sizes.patch}
        with suppress(OSError, ValueError):
            config = json.loads((run / "config.json").read_text(encoding="utf-8"))
            names = ("batch", "schedule.rate", "schedule.cycle_steps", "average")
            told |= {name: config[name] for name in names}
        if training := rows.get("training"):
            told |= {name: training[name] for name in ("step", "loss", "seconds")}
            told["patches_per_second"] = statistics.median(
                row["patches_per_second"] for row in lines if row["kind"] == "training"
            )
        with suppress(OSError, ValueError):
            told["held_out_before"] = json.loads((run / BEFORE).read_text(encoding="utf-8")).get("loss")
        if evaluation := rows.get("evaluation"):
            told |= {f"held_out_{name}": value for name, value in evaluation.items() if isinstance(value, float)}
        told["goes_on_by"] = "cat DIR/run.tar.gz* | tar xz -C RUN, and then --state RUN/checkpoints"
        self.results.content["training"] = told
        self.results.save()

    def _settings(self, batches, output, until):
        arguments = self.arguments
        return Settings(
            config=_from_root(arguments.config),
            models=_from_root(arguments.models),
            state=_from_root(arguments.state),
            patch=self.sizes.patch,
            changes=[f"--config.{one}" for one in (*self.sizes.fields, *arguments.set)],
            anew=arguments.anew,
            cycle_steps=arguments.cycle_steps,
            largest_rate=arguments.largest_rate,
            batches=list(batches),
            output=str(output),
            until=until,
        )

    @contextmanager
    def _stopped_by_signals(self):
        """SIGTERM and Ctrl-C ask the process at work to end; what is known is kept."""

        def ask(number, _):
            self.stop = number

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _from_root(path):
    """A path as the processes see it; one in the repository is the same on every machine, and so in a run's config."""
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _read(file):
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
