"""What rehearsal and training are told, and the config that they make of it."""

import glob
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.training.config import read_config

# Fields that this command chooses when a run begins; one that goes on has them from its state.
CHOSEN = (
    *("batch", "seed", "weights", "average", "epoch_steps", "schedule.rate", "schedule.cycle_steps"),
    *("data.stream.held_out_patch", "data.stream.held_out_samples"),
)
PAYS = 1.05  # times as many patches a second are worth a larger batch
_INDICES = 2**31  # voxels times channels of one array, above which convolutions of a GPU may refuse
SHARE = 0.9  # of the steps that there is time for by the rehearsal, which are counted on
EVALUATIONS = 3  # in a cycle
_HELD_OUT_PHANTOMS = 4  # where no model is held out


@dataclass(frozen=True)
class Settings:
    """What a rehearsal or a training is to do; as a file of JSON it goes to the process that does it.

    Attributes:
        config: file of the config.
        models: folder of the folders of models.
        state: `checkpoints` of the run to go on from.
        patch: voxels a side.
        changes: `--config.FIELD=VALUE`, which have the last word.
        cycle_steps: of the rate; 0 for as many as there is time for.
        largest_rate: largest factor on the config's rate.
        anew: whether to begin a new run though the state could go on as it is.
        few: models to use, for a rehearsal; 0 for all.
        batches: to rehearse, or the one to train with.
        steps: to time, in a rehearsal.
        faster: patches a second that a batch has to surpass by `PAYS`, in a rehearsal; 0 for none.
        per_second: patches a second that were rehearsed, for training; 0 if unknown.
        until: Unix time by which it ends.
        output: a JSON file to write, or the folder of the run.
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
    anew: bool = False
    few: int = 0
    steps: int = 8
    faster: float = 0.0
    per_second: float = 0.0
    until: float = math.inf

    @classmethod
    def read(cls, file: str | Path) -> "Settings":
        """From a file."""
        return cls(**json.loads(Path(file).read_text(encoding="utf-8")))

    def write(self, file: Path) -> None:
        """To a file."""
        file.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def make_config(settings: Settings, batch: int, **chosen) -> ConfigDict:
    """The config of a run.

    Args:
        settings: see there.
        batch: patches in a step.
        chosen: further fields, a `.` in their names written as `__`.

    Raises:
        UserError: a field is mistyped or out of its range, or there are no models.
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
    """The row whose batch, and whose flags for XLA, pay: each larger one that is faster than the best before by `PAYS`.

    Args:
        rows: of all rehearsals.

    Returns:
        one of them; None if every one failed.
    """
    best = None
    for row in sorted((row for row in rows if "failed" not in row), key=lambda row: row["batch"]):
        if best is None or row["per_second"] > PAYS * best["per_second"]:
            best = row
    return best


def rate_factor(batch: int, base: int, largest: float) -> float:
    """What a larger batch multiplies the rate by: the root of how much larger it is, within bounds."""
    return min(max(1.0, math.sqrt(batch / base)), max(1.0, largest))


def cycle_steps(settings: Settings, batch: int, seconds: float, base: ConfigDict) -> int:
    """The length of a new cycle, which ends with the time.

    Args:
        settings: with a length that is asked for, or the patches a second that were rehearsed.
        batch: patches in a step.
        seconds: that there are.
        base: the config, whose length it has where nothing else is known.
    """
    cycle = settings.cycle_steps or possible_steps(settings, batch, seconds) or base.schedule.cycle_steps
    return max(cycle, base.schedule.warmup + 1)


def averaging(decay: float, cycle: int) -> float:
    """The decay of the parameters' average, which is over a tenth of a cycle at most."""
    return min(decay, max(0.0, 1 - 10 / cycle))


def possible_steps(settings: Settings, batch: int, seconds: float) -> int:
    """The steps that there is time for, with some to spare; 0 where that is not known."""
    return int(SHARE * settings.per_second * seconds / batch)


def last_step(step: int, cycle: int, possible: int) -> int:
    """Where a run ends: at the last end of a cycle that there is time for, or at the next one.

    Args:
        step: from which it goes on.
        cycle: steps of one.
        possible: steps that there is time for.
    """
    return max((step + possible) // cycle, step // cycle + 1) * cycle


def model_fields(base: ConfigDict, models: Path, few: int = 0) -> dict:
    """The stream's fields, with the config's patterns looked for in another folder; what finds nothing is left out.

    Args:
        base: the config, whose patterns are like `.../cryoem/*.cif.gz`.
        models: folder that has `cryoem` and others like it.
        few: models to train on, spread over the sizes of the files, the largest among them; 0 for all.

    Raises:
        UserError: no pattern finds anything.
    """
    stream = base.data.stream
    if not stream.models:  # phantoms alone
        return {}
    patterns = [f"{Path(one).parent.name}/{Path(one).name}" for one in _parts(stream.models)]
    shares = _parts(stream.shares) or ["1"] * len(patterns)
    found = {pattern: sorted(models.glob(pattern)) for pattern in patterns}
    names = {path.name.split(".")[0]: path for paths in found.values() for path in paths}
    if not names:
        raise UserError(f"{models}: expected models as {' or '.join(patterns)}, found none; check --models")
    kept = [pattern for pattern in patterns if found[pattern]]
    exclude = [name for name in _parts(stream.exclude) if name in names]
    held_out = [name for name in _parts(stream.held_out) if name in names]
    if few:
        training = [name for name in names if name not in {*exclude, *held_out}]
        training.sort(key=lambda name: -names[name].stat().st_size)
        exclude += sorted(set(training) - set(training[:: math.ceil(len(training) / few)]))
    return {
        "data.stream.models": ",".join(f"{models}/{pattern}" for pattern in kept),
        "data.stream.shares": ",".join(shares[patterns.index(one)] for one in kept if stream.shares),
        "data.stream.exclude": ",".join(exclude),
        "data.stream.held_out": ",".join(held_out),
        "data.stream.held_out_phantoms": stream.held_out_phantoms or (0 if held_out else _HELD_OUT_PHANTOMS),
        "data.stream.entries": stream.entries if _any_entries(base) else 0.0,
    }


def _held_out_fields(base, batch, patch):
    """As many held-out samples as fill batches, and as large as an evaluation of one can be."""
    channels = 1 + base.network.up_width
    sides = [side for side in (base.data.stream.held_out_patch, 96) if side > patch]
    side = next((one for one in sides if batch * one**3 * channels < _INDICES), patch)
    samples = math.ceil(max(base.data.stream.held_out_samples, 1) / batch) * batch
    return {"data.stream.held_out_patch": side, "data.stream.held_out_samples": samples}


def _any_entries(base):
    return any(glob.glob(one) for one in _parts(base.data.entries.folders))


def _parts(text):
    return [part.strip() for part in text.split(",") if part.strip()]
