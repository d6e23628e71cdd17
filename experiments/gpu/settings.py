"""Settings of rehearsal and training, and the training configuration derived from them."""

import glob
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.training.config import read_config, split_commas

# Fields that this command chooses for a new run; a run that is continued has them from its checkpoint.
CHOSEN = (
    *("batch", "seed", "weights", "average", "epoch_steps", "schedule.rate", "schedule.cycle_steps"),
    *("data.stream.held_out_patch", "data.stream.held_out_samples"),
)
PAYS = 1.05  # gain in patches a second for which a larger batch is taken
_INDICES = 2**31  # voxels times channels of an array, above which convolutions on a GPU may fail
SHARE = 0.9  # of the steps that the rehearsal predicts, which are planned
EVALUATIONS = 3  # per cycle
_HELD_OUT_PHANTOMS = 4  # if no model is held out


@dataclass(frozen=True)
class Settings:
    """Settings of a rehearsal or a training, passed to its process as a JSON file.

    Attributes:
        config: File of the training configuration.
        models: Folder of the folders of models.
        state: Folder `checkpoints` of the run to continue.
        patch: Side of the patches, voxels.
        changes: Arguments `--config.FIELD=VALUE`, which override all other choices.
        cycle_steps: Steps of a cycle of the learning rate; 0 for as many as the time allows.
        largest_rate: Largest factor on the learning rate of the configuration.
        new_run: Whether to start a new run even if the checkpoint can be continued.
        few: Number of models for a rehearsal; 0 for all.
        batches: Batch sizes to rehearse, or the batch size to train with.
        steps: Steps to time in a rehearsal.
        faster: Patches a second that a rehearsed batch has to exceed by `PAYS`; 0 for none.
        per_second: Patches a second of the rehearsal, for training; 0 if unknown.
        until: Unix time of the end.
        output: JSON file to write, or folder of the run.
    """

    config: str
    models: str
    state: str
    patch: int
    changes: list[str]
    cycle_steps: int
    largest_rate: float
    batches: list[int]
    output: str
    new_run: bool = False
    few: int = 0
    steps: int = 8
    faster: float = 0.0
    per_second: float = 0.0
    until: float = math.inf

    @classmethod
    def read(cls, file: str | Path) -> "Settings":
        """Read settings from a file."""
        return cls(**json.loads(Path(file).read_text(encoding="utf-8")))

    def write(self, file: Path) -> None:
        """Write the settings to a file."""
        file.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def make_config(settings: Settings, batch: int, **chosen) -> ConfigDict:
    """Return the configuration of a run.

    Args:
        settings: Settings of the rehearsal or training.
        batch: Number of patches in a step.
        chosen: Further fields, with `__` for `.` in their names.

    Raises:
        UserError: A field is misspelled or out of its range, or there are no models.
    """
    base = read_config(settings.config)
    fields = {
        "batch": batch,
        "data.patch": settings.patch,
        "network.compute_dtype": "bfloat16",
        "checkpoint.every_minutes": 1.0,
        "checkpoint.keep": 1,
        "schedule.rate": base.schedule.rate * rate_factor(batch, base.batch, settings.largest_rate),
        **model_fields(base, Path(settings.models), settings.few),
        **_held_out_fields(base, batch, settings.patch),
        **{name.replace("__", "."): value for name, value in chosen.items()},
    }
    return read_config(settings.config, [*(f"--config.{name}={fields[name]}" for name in fields), *settings.changes])


def chosen(rows: list[dict]) -> dict | None:
    """Return the row with the best batch size and XLA flags: larger batches must be faster by a factor of `PAYS`.

    Args:
        rows: Rows of all rehearsals.

    Returns:
        The best row; None if all rehearsals failed.
    """
    best = None
    for row in sorted((row for row in rows if "failed" not in row), key=lambda row: row["batch"]):
        if best is None or row["per_second"] > PAYS * best["per_second"]:
            best = row
    return best


def rate_factor(batch: int, base: int, largest: float) -> float:
    """Return the factor on the learning rate for a larger batch: the square root of the ratio, from 1 to `largest`."""
    return min(max(1.0, math.sqrt(batch / base)), max(1.0, largest))


def cycle_steps(settings: Settings, batch: int, seconds: float, base: ConfigDict) -> int:
    """Return the number of steps of a new cycle, which ends when the time does.

    Args:
        settings: Settings with a requested number of steps, or with the patches a second of the rehearsal.
        batch: Number of patches in a step.
        seconds: Available time.
        base: Configuration, whose number is used if nothing else is known.
    """
    cycle = settings.cycle_steps or possible_steps(settings, batch, seconds) or base.schedule.cycle_steps
    return max(cycle, base.schedule.warmup + 1)


def averaging(decay: float, cycle: int) -> float:
    """Return the decay of the average of the parameters, which extends over at most a tenth of a cycle."""
    return min(decay, max(0.0, 1 - 10 / cycle))


def possible_steps(settings: Settings, batch: int, seconds: float) -> int:
    """Return the number of steps that the time allows, with a reserve; 0 if the speed is unknown."""
    return int(SHARE * settings.per_second * seconds / batch)


def last_step(step: int, cycle: int, possible: int) -> int:
    """Return the last step of a run: the last end of a cycle that the time allows, or else the next end of a cycle.

    Args:
        step: Step of the checkpoint that is continued.
        cycle: Number of steps of a cycle.
        possible: Number of steps that the time allows.
    """
    return max((step + possible) // cycle, step // cycle + 1) * cycle


def model_fields(base: ConfigDict, models: Path, few: int = 0) -> dict:
    """Return the fields of the stream, with the models in another folder; patterns without a match are omitted.

    Args:
        base: Configuration, with patterns such as `.../cryoem/*.cif.gz`.
        models: Folder that contains `cryoem` and other folders of models.
        few: Number of models to train on, spread over the sizes of the files, including the largest; 0 for all.

    Raises:
        UserError: No pattern matches a file.
    """
    stream = base.data.stream
    if not stream.models:  # phantoms alone
        return {}
    patterns = [f"{Path(pattern).parent.name}/{Path(pattern).name}" for pattern in split_commas(stream.models)]
    shares = split_commas(stream.shares) or ["1"] * len(patterns)
    matches = {pattern: sorted(models.glob(pattern)) for pattern in patterns}
    names = {path.name.split(".")[0]: path for paths in matches.values() for path in paths}
    if not names:
        raise UserError(f"{models}: expected models such as {' or '.join(patterns)}, found none; check --models")
    kept = [pattern for pattern in patterns if matches[pattern]]
    exclude = [name for name in split_commas(stream.exclude) if name in names]
    held_out = [name for name in split_commas(stream.held_out) if name in names]
    if few:
        training = [name for name in names if name not in {*exclude, *held_out}]
        training.sort(key=lambda name: -names[name].stat().st_size)
        exclude += sorted(set(training) - set(training[:: math.ceil(len(training) / few)]))
    return {
        "data.stream.models": ",".join(f"{models}/{pattern}" for pattern in kept),
        "data.stream.shares": ",".join(shares[patterns.index(pattern)] for pattern in kept if stream.shares),
        "data.stream.exclude": ",".join(exclude),
        "data.stream.held_out": ",".join(held_out),
        "data.stream.held_out_phantoms": stream.held_out_phantoms or (0 if held_out else _HELD_OUT_PHANTOMS),
        "data.stream.entries": stream.entries if _any_entries(base) else 0.0,
    }


def _held_out_fields(base, batch, patch):
    """Return fields for held-out samples that fill whole batches and are as large as an evaluation can be."""
    channels = 1 + base.network.up_width
    sides = [side for side in (base.data.stream.held_out_patch, 96) if side > patch]
    side = next((side for side in sides if batch * side**3 * channels < _INDICES), patch)
    samples = math.ceil(max(base.data.stream.held_out_samples, 1) / batch) * batch
    return {"data.stream.held_out_patch": side, "data.stream.held_out_samples": samples}


def _any_entries(base):
    return any(glob.glob(pattern) for pattern in split_commas(base.data.entries.folders))
