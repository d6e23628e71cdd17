"""Run the parts, each in a process of its own with a time limit."""

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
from experiments.gpu.checkpoints import ARCHIVE, BEFORE, METRICS, Packer, newest_checkpoint
from experiments.gpu.processes import FAILED, ROOT, Outcome, run_process
from experiments.gpu.results import Results
from experiments.gpu.settings import Settings, chosen

PARTS = ("tests", "benchmarks", "training")
LOG = "log.txt"
# 3D convolutions with the channels last, like the arrays; without it, XLA transposes them around each convolution.
LAYOUT = "--xla_gpu_force_conv_nhwc=true"
_MACHINE_SECONDS = 60.0
_REHEARSAL_SHARE = 0.6  # share of the time of the benchmarks
_LEAST_SECONDS = {"benchmark": 8.0, "training": 20.0}  # a part with less time is not started
_LONGEST_BENCHMARK = 60.0
# Seconds before the end at which training ends by itself, receives SIGTERM, and is killed.
_ENDS_ITSELF, _ASKED, _KILLED = 16.0, 10.0, 3.0


def part_seconds(arguments, sizes: Sizes) -> tuple[float, float]:
    """Return the time limits of the tests, and of rehearsal and benchmarks together; training has the remaining time.

    Args:
        arguments: Arguments with `minutes`, `test_seconds`, and `benchmark_seconds`.
        sizes: Sizes with the largest shares of the total time.
    """
    tests, measured = (share * 60 * arguments.minutes for share in sizes.shares)
    return min(arguments.test_seconds, tests), min(arguments.benchmark_seconds, measured)


@dataclass
class Runner:
    """Runs all parts within the time, and collects their results.

    Attributes:
        arguments: Arguments of the command line.
        scratch: Folder for temporary files.
        sizes: Sizes of patches, batches, and maps.
        results: Results so far.
        environment: Environment of the processes.
        end: Unix time of the end.
        stop: Number of the signal that stopped the command, if any.
        failed: Whether a part failed.
        rows: Rows of the rehearsals.
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
    def start(cls, arguments, scratch: Path) -> "Runner":
        """Create the output folder and the runner; the time starts now."""
        end = time.time() + 60 * arguments.minutes
        sizes = SMOKE if arguments.smoke else FULL
        sizes = sizes._replace(
            patch=arguments.patch or sizes.patch, batches=tuple(sorted(arguments.batches or sizes.batches))
        )
        arguments.output.mkdir(exist_ok=True)
        environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            # Compiled programs are shared between the parts.
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(scratch / "compiled"),
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
        }
        if arguments.smoke:
            environment |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
            environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
        for pattern in (LOG, METRICS, f"{ARCHIVE}*"):  # of results that are replaced
            for path in arguments.output.glob(pattern):
                path.unlink()
        return cls(arguments, scratch, sizes, Results(arguments.output), environment, end)

    def run_all(self) -> int:
        """Run all parts; return 0, 1 if a part failed, or 128 plus the number of the signal that stopped them."""
        tests, measured = part_seconds(self.arguments, self.sizes)
        parts = self.arguments.parts
        with self._stopped_by_signals():
            self._machine()
            if "tests" in parts:
                self._tests(tests)
            if "benchmarks" in parts:
                until = min(time.time() + measured, self.end)
                self._rehearse(min(time.time() + _REHEARSAL_SHARE * measured, self.end))
                self._benchmarks(until)
            if "training" in parts:
                self._train()
        print((self.arguments.output / "results.md").read_text(encoding="utf-8"), flush=True)
        return 128 + self.stop if self.stop is not None else int(self.failed)

    def run(
        self, name: str, command: list, until: float, *, flags="", environment=None, counts=True, **more
    ) -> Outcome:
        """Run the process of a part until a Unix time at the latest, and record its outcome.

        Args:
            name: Name of the part.
            command: Arguments of Python.
            until: Unix time of the limit.
            flags: Additional flags for XLA.
            environment: Additional environment variables.
            counts: Whether a failure of the part is a failure of the command.
            more: Further arguments of `run_process`.
        """
        if self.stop is not None:
            return Outcome(FAILED, 0.0, "")
        self.results.part(name, "running")
        print(f"{name}: at most {until - time.time():.0f} s", flush=True)
        flags = f"{self.environment.get('XLA_FLAGS', '')} {flags}".strip()
        outcome = run_process(
            [sys.executable, *command],
            seconds=max(0.0, until - time.time()),
            log=self.arguments.output / LOG,
            environment=self.environment | {"XLA_FLAGS": flags} | (environment or {}),
            stopped=lambda: self.stop is not None,
            **more,
        )
        self.failed |= counts and outcome.status == FAILED
        self.results.part(name, *outcome)
        print(f"{name}: {outcome.status} after {outcome.seconds:.1f} s: {outcome.message}", flush=True)
        return outcome

    def _machine(self):
        outcome = self.run("machine", ["-m", "experiments.gpu.machine"], min(self.end, time.time() + _MACHINE_SECONDS))
        with suppress(ValueError):
            self.results.content["machine"] = json.loads(outcome.message)
            self.results.part("machine", outcome.status, outcome.seconds)

    def _tests(self, seconds):
        files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*_on_gpu.py"))
        # Warnings of other versions than the project's own are not failures.
        options = ["-p", "no:cacheprovider", "-W", "default", "-v", "--durations=5"]
        # They mostly compile, in which they do not slow each other down.
        options += ["-n", "0" if self.arguments.smoke else "4", "--dist", "loadfile"]
        command = ["-m", "pytest", *options, *files]
        more = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.run("tests", command, min(self.end, time.time() + seconds), environment=more)

    def _rehearse(self, until):
        """Time growing batches; on a GPU, the first also with the other layout of convolutions, and keep the faster."""
        if self.results.content["machine"].get("platform") != "gpu":
            return self._rehearse_batches(self.sizes.batches, "", until, faster=0.0)
        first, *larger = self.sizes.batches
        for flags in ("", LAYOUT):
            self._rehearse_batches([first], flags, until, faster=0.0)
        best = chosen(self.rows)
        if best and larger and not best["resumes"]:
            self._rehearse_batches(larger, best["flags"], until, faster=best["per_second"])

    def _rehearse_batches(self, batches, flags, until, *, faster):
        """Time some batches; rows from before a failure are kept."""
        if time.time() + _LEAST_SECONDS["benchmark"] > until:
            return
        name = f"rehearsal, batch {', '.join(map(str, batches))}" + (", channels last" if flags else "")
        output = self.scratch / f"rehearsal-{len(self.results.content['parts'])}.json"
        settings = self._settings(batches, output, until - 5)
        settings = replace(settings, few=self.sizes.few, steps=self.sizes.steps, faster=faster)
        settings.write(output.with_suffix(".settings"))
        command = ["-m", "experiments.gpu.rehearsal", output.with_suffix(".settings")]
        self.run(name, command, until, flags=flags, counts=not flags)
        rows = [row | {"flags": flags} for row in _read(output)]
        for row in rows:
            row["what"] += ", channels last" if flags else ""
        self.rows += rows
        self.results.add("rehearsal", rows)

    def _benchmarks(self, until):
        models = [path for path in self.arguments.models.rglob("*.gz") if path.is_file()]
        if self.arguments.smoke:
            models = sorted(models, key=lambda path: path.stat().st_size)[: self.sizes.few]
        for benchmark in benchmarks(self.sizes, models):
            if time.time() + _LEAST_SECONDS["benchmark"] > until:
                self.results.part(benchmark.name, "left out", 0.0, "no time was left")
                continue
            output = self.scratch / "benchmark.json"
            output.unlink(missing_ok=True)
            command = ["-m", f"experiments.benchmarks.{benchmark.module}", *benchmark.arguments, "-o", output]
            self.run(benchmark.name, command, min(until, time.time() + _LONGEST_BENCHMARK))
            self.results.add("benchmarks", [benchmark.result(row) for row in _read(output)])

    def _train(self):
        """Train; if that fails, train once more with half the batch size."""
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
                new_run=self.arguments.new_run or attempt > 0,
                per_second=best.get("per_second", 0.0),
                few=self.sizes.few if self.arguments.smoke else 0,
            )
            settings.write(run.with_suffix(".settings"))
            packer = Packer(run, self.arguments.output)
            command = ["-m", "experiments.gpu.training", run.with_suffix(".settings")]
            more = {"flags": best.get("flags", ""), "tick": packer, "grace": _ASKED - _KILLED}
            outcome = self.run(name, command, self.end - _ASKED, **more)
            packer.last()
            self._add_training(run, outcome)
            if outcome.status != FAILED or self.stop is not None:
                return
            state = str(run / "checkpoints") if newest_checkpoint(run / "checkpoints") else state

    def _add_training(self, run, outcome):
        lines = read_json_lines(run / METRICS)
        rows = {row["kind"]: row for row in lines}
        summary = {"status": outcome.status, "patch": self.sizes.patch}
        with suppress(OSError, ValueError):
            config = json.loads((run / "config.json").read_text(encoding="utf-8"))
            names = ("batch", "schedule.rate", "schedule.cycle_steps", "average")
            summary |= {name: config[name] for name in names}
        if training := rows.get("training"):
            summary |= {name: training[name] for name in ("step", "loss", "seconds")}
            summary["patches_per_second"] = statistics.median(
                row["patches_per_second"] for row in lines if row["kind"] == "training"
            )
        with suppress(OSError, ValueError):
            summary["held_out_before"] = json.loads((run / BEFORE).read_text(encoding="utf-8")).get("loss")
        if evaluation := rows.get("evaluation"):
            summary |= {f"held_out_{name}": value for name, value in evaluation.items() if isinstance(value, float)}
        summary["continue_with"] = "cat DIR/run.tar.gz* | tar xz -C RUN, and then --state RUN/checkpoints"
        self.results.content["training"] = summary
        self.results.save()

    def _settings(self, batches, output, until):
        arguments = self.arguments
        return Settings(
            config=_from_root(arguments.config),
            models=_from_root(arguments.models),
            state=_from_root(arguments.state),
            patch=self.sizes.patch,
            changes=[f"--config.{field}" for field in (*self.sizes.fields, *arguments.set)],
            new_run=arguments.new_run,
            cycle_steps=arguments.cycle_steps,
            largest_rate=arguments.largest_rate,
            batches=list(batches),
            output=str(output),
            until=until,
        )

    @contextmanager
    def _stopped_by_signals(self):
        """Let SIGTERM and Ctrl-C end the running process, and keep the results so far."""

        def ask(number, _):
            self.stop = number

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _from_root(path):
    """Return a path relative to the repository if it is inside, so that the config of a run is the same everywhere."""
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _read(file):
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
