"""Every setting of a training run, with its default: the paper's.

A file in `experiments/configs/` takes `default()`, changes a few fields and gives the result as `get_config()`.
"""

import json
import math
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.simulate.stream import config_fields

# What may change when a run goes on, alone or with all its fields: none of it touches what a step computes from its
# state and its batch. A cosine has its length from `epochs` and `steps`, which then may not.
MUTABLE_ON_RESUME = (
    *("epochs", "steps", "minutes", "devices", "platform", "log_every", "evaluation", "checkpoint"),
    *("data.dataset.folder", "data.dataset.threads", "data.entries.folders"),
    "data.stream.models",  # where they lie; the stream's state knows which they are
)
_OF_COSINE = ("epochs", "steps")

REQUIRED = "<required>"  # value of `weights` in a config that has none of its own to start from

SOURCES = ("dataset", "stream", "entries")
SCHEDULES = ("exponential", "cosine", "cycles", "constant")
OPTIMIZERS = ("adam", "adamw", "muon", "sgd")


def default() -> ConfigDict:
    """The paper's training (Agarwal et al. 2024) but for its dataset."""
    c = ConfigDict()
    c.seed = 0  # of the first parameters and of every random choice of the data
    c.batch = 6  # patches in a step, over all devices
    c.epochs = 195  # how many, if `steps` is 0
    c.steps = 0  # how many in all; 0: so many as the epochs have
    c.epoch_steps = 0  # steps in an epoch; 0: once through the dataset (an endless stream has no such number)
    c.minutes = 0.0  # of wall time in which the run ends, over all its parts; 0: no limit
    c.devices = 0  # how many devices compute; 0: as many as there are and the batch divides among
    c.platform = ""  # cpu or gpu; empty: what JAX finds best
    c.log_every = 10  # steps between two lines of metrics.jsonl
    c.weights = ""  # a weights folder, or its name, to start from; empty: from random parameters
    c.average = 0.0  # decay of the exponential average of the parameters that is evaluated and shipped; 0: none

    c.network = ConfigDict()
    c.network.depth = 5  # poolings
    c.network.down_width = 16  # channels on the way down
    c.network.up_width = 32  # channels on the way up
    c.network.last_widths = (16, 8)  # channels of the last level
    c.network.negative_slope = 0.1  # of the LeakyReLU
    c.network.compute_dtype = "float32"  # float32 or bfloat16, of activations; losses are in float32 always

    c.data = ConfigDict()
    c.data.source = "dataset"  # dataset, stream or entries: which of the three below
    c.data.patch = 96  # voxels a side, for stream and entries; a dataset has its own

    c.data.grid = 0.0  # voxels that the resolution takes on the grid of the data; 0: maps as they are
    # What a network is trained on it is given later: `crefjax denoise` brings maps to this grid. With it, they are
    # standardized by their solvent and within their mask (`crefjax.data.grid`), else as a whole.

    c.data.dataset = ConfigDict()
    c.data.dataset.folder = "dataset"  # written by `crefjax prepare`
    c.data.dataset.rotations = True  # whether each patch is turned by one of the 24 rotations of the cube
    c.data.dataset.threads = 4  # that read ahead

    c.data.stream = ConfigDict()
    c.data.stream.models = ""  # files of atomic models, names or patterns with *, separated by commas
    c.data.stream.shares = ""  # how often each pattern is drawn, numbers separated by commas; empty: all models alike
    c.data.stream.exclude = ""  # names (without suffix) of models that are not used, separated by commas
    c.data.stream.held_out = ""  # names of models that are for evaluation alone, separated by commas
    c.data.stream.phantoms = 0  # synthetic models besides
    c.data.stream.held_out_phantoms = 0  # of other make, for evaluation
    c.data.stream.held_out_samples = 24  # patches that are evaluated
    c.data.stream.held_out_patch = 0  # voxels a side of those, standardized as whole maps; 0: as in training
    c.data.stream.masked = 1.0  # share of the samples whose input is masked; the truth always is
    c.data.stream.gain = (1.0, 1.0)  # factor on a standardized patch: its deviation is not that of a whole map
    c.data.stream.level = (1.0, 1.0)  # share of a patch's mean that is subtracted: it is not that of a whole map
    c.data.stream.entries = 0.0  # share of the batches that are patches of `data.entries.folders` instead
    # The ranges that samples are drawn from; `crefjax.simulate.stream.StreamConfig` describes each.
    for name, value in config_fields().items():
        c.data.stream[name] = value

    c.data.entries = ConfigDict()
    c.data.entries.folders = ""  # entry folders, names or patterns with *, separated by commas
    c.data.entries.held_out = 0.2  # share of each mask's volume that is for evaluation alone
    c.data.entries.held_out_patches = 16  # that are evaluated, of each entry
    c.data.entries.rotations = True  # as for a dataset

    c.losses = ConfigDict()  # factors of the losses of `crefjax.losses`; 0: not computed
    c.losses.cref_l1 = 1.0  # |C_ref - FSC(denoised, full map)|, the paper's
    c.losses.cref_l1_masked = 0.0  # the same within the mask, where inputs are not masked (`data.stream.masked`)
    c.losses.gain_l1 = 0.0  # distance of the output's scale from the signal's, shell by shell, by half-maps alone
    c.losses.fsc = 0.0  # 1 - FSC of either denoised half-map with the other half-map
    c.losses.n2n_l2 = 0.0  # squared difference of either denoised half-map to the other half-map
    c.losses.n2n_l1 = 0.0  # absolute difference, likewise
    c.losses.truth_fsc = 0.0  # 1 - FSC(denoised, truth), where a truth is known
    c.losses.truth_fsc_masked = 0.0  # the same within the mask, where inputs are not masked (`data.stream.masked`)
    c.losses.truth_l2 = 0.0  # squared error over the truth's power, where a truth is known
    c.losses.bias = 0.0  # power of the bias of the denoised half-maps, over that of the half-maps

    c.optimizer = ConfigDict()
    c.optimizer.name = "adam"  # adam, adamw, muon (Jordan 2024; Adam for what is no kernel) or sgd
    c.optimizer.b1 = 0.9  # decay of the mean of gradients; momentum of sgd (for muon's kernels it is 0.95)
    c.optimizer.b2 = 0.999  # decay of the mean of their squares
    c.optimizer.eps = 1e-8  # added to the root of that
    c.optimizer.weight_decay = 0.0  # of adamw
    c.optimizer.clip = 0.0  # largest norm of the whole gradient; 0: any

    c.schedule = ConfigDict()
    c.schedule.name = "exponential"  # exponential, cosine, cycles or constant
    c.schedule.rate = 3e-4  # learning rate at its highest
    c.schedule.cycle_steps = 0  # cycles: steps of one
    c.schedule.decay = 0.7  # exponential: factor on the rate ... (cycles: from one to the next)
    c.schedule.decay_epochs = 10.0  # ... in so many epochs, continuously
    c.schedule.warmup = 0  # steps in which the rate rises from 0
    c.schedule.final = 0.0  # cosine, cycles: share of the rate that is left at the last step

    c.evaluation = ConfigDict()
    c.evaluation.every_epochs = 1  # epochs between two evaluations; 0: none
    c.evaluation.patience = 0  # evaluations without a better one after which the run ends; 0: any number

    c.checkpoint = ConfigDict()
    c.checkpoint.every_steps = 0  # steps between two checkpoints, besides the one after each epoch; 0: none
    c.checkpoint.every_minutes = 10.0  # minutes between two, likewise; 0: none
    c.checkpoint.keep = 3  # how many of the newest stay, besides the best
    return c.lock()


def demo_config() -> ConfigDict:
    """A small network on small patches of phantoms, which learns something in two minutes on two CPU cores."""
    c = _short(steps=220, epoch_steps=110, loss="truth_fsc", schedule="cosine", rate=4e-3, warmup=10)
    c.batch = 4
    c.network.depth = 3
    c.data.source = "stream"
    c.data.patch = 32
    c.data.stream.phantoms = 24
    c.data.stream.held_out_phantoms = 4
    c.data.stream.held_out_samples = 16
    c.data.stream.voxel_size = (1.2, 1.8)
    c.data.stream.resolution = (2.4, 4.0)
    c.data.stream.gain = (1.0, 1.5)
    return c


def finetune_config() -> ConfigDict:
    """Weights adapted to one specimen without truth: either denoised half-map against the other half-map."""
    c = _short(steps=2000, epoch_steps=20, loss="fsc", schedule="constant", rate=2e-4, warmup=20)
    c.batch = 2
    c.minutes = 10.0
    c.average = 0.98
    c.data.source = "entries"
    c.data.patch = 64
    c.data.entries.held_out = 0.3
    c.data.entries.held_out_patches = 16
    c.evaluation.patience = 5
    c.checkpoint.keep = 1
    return c


def _short(*, steps, epoch_steps, loss, schedule, rate, warmup) -> ConfigDict:
    """A run of minutes, by one loss: gradients are clipped, and only epochs end with a checkpoint."""
    c = default()
    c.steps, c.epoch_steps = steps, epoch_steps
    c.losses.cref_l1 = 0.0
    c.losses[loss] = 1.0
    c.optimizer.clip = 1.0
    c.schedule.name, c.schedule.rate, c.schedule.warmup = schedule, rate, warmup
    c.checkpoint.every_minutes = 0.0
    return c


def read_config(file: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of a file, with fields changed on the command line.

    Args:
        file: Python source with `get_config()`.
        overrides: `--config.FIELD=VALUE`, or the two apart.

    Raises:
        UserError: the file is missing or no config; a field is mistyped, or its value of another type.
    """
    from absl import flags
    from ml_collections import config_flags

    if not Path(file).is_file():
        raise UserError(f"{file}: expected a config (see experiments/configs), found no such file; check the path")
    argv = ["crefjax train", f"--config={file}", *overrides]
    values = flags.FlagValues()
    sys.modules.pop("config_config", None)  # of a file before, whose get_config a file without one would take over
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing is left beside the user's file
    try:
        with warnings.catch_warnings():
            # What ml_collections calls to load the file.
            warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
            holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
            rest = values(argv)[1:]
            config = holder.value
    except flags.Error as error:
        text = re.sub(r"^Unknown command line flag '(.*?)'", r"there is no option --\1", _one_line(error))
        raise UserError(f"--config: {text}; `crefjax/training/config.py` has all fields") from error
    except Exception as error:  # whatever a file of Python may raise; a mistyped field among it
        if "no attribute 'get_config'" in str(error):
            raise UserError(f"{file}: expected a function get_config(), found none; see experiments/configs") from error
        if isinstance(error, (AttributeError, KeyError)):  # which ml_collections raises for a mistyped field
            field = re.sub(r"[\"'\\]", "", _one_line(error).replace("\\n", ". "))
            field = re.sub(r"^Key (\w+) does not exist.*\}", r"\1", field)  # it lists every other field
            raise UserError(
                f"{file} {' '.join(overrides)}: there is no field {field}; `crefjax/training/config.py` has all fields"
            ) from error
        raise UserError(f"{file}: cannot be used ({type(error).__name__}: {_one_line(error)}); correct it") from error
    finally:
        sys.dont_write_bytecode = bytecode
    if rest:
        raise UserError(f"crefjax train: expected --config.FIELD=VALUE, found {rest[0]!r}; correct it")
    check_config(config, file)
    return config


def check_config(config: ConfigDict, source: str = "config") -> None:
    """Check what can be known of a config by itself.

    Args:
        config: of a run.
        source: where it is from, for the message.

    Raises:
        UserError: a field is missing, unknown, of another type or out of its range.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(f"{source}: expected get_config() to give a ConfigDict, found {type(config).__name__}")
    expected, found = flat(default()), flat(config)
    for name in found.keys() - expected.keys():
        raise UserError(f"{source}: there is no field {name}; `crefjax/training/config.py` has all fields")
    for name in expected.keys() - found.keys():
        raise UserError(f"{source}: the field {name} is missing; start from crefjax.training.config.default()")
    for name, value in found.items():
        _check_numbers(source, name, value, expected[name])
    if found["weights"] == REQUIRED:
        raise UserError(f"{source}: expected --config.weights=W to start from, found none; give a name or a folder")
    choices = {
        "data.source": SOURCES,
        "schedule.name": SCHEDULES,
        "optimizer.name": OPTIMIZERS,
        "network.compute_dtype": ("float32", "bfloat16"),
        "platform": ("", "cpu", "gpu"),
    }
    for name, allowed in choices.items():
        if found[name] not in allowed:
            raise UserError(
                f"{source}: expected {name} out of {', '.join(filter(None, allowed))}, found {found[name]!r}"
            )
    least = {"batch": 1, "checkpoint.keep": 1, "log_every": 1, "data.patch": 16, "schedule.decay_epochs": 1e-6}
    least |= {"schedule.decay": 1e-6, "data.stream.gain": 1e-3}
    most = {"average": 0.999999, "data.stream.masked": 1, "data.entries.held_out": 0.5, "schedule.final": 1}
    most |= {"data.stream.entries": 0.9, "optimizer.b1": 0.999999, "optimizer.b2": 0.9999999}
    for name, value in found.items():
        lowest = least.get(name, 0)
        signed = name.startswith("data.stream.noise_")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, (int, float)) and not (signed or lowest <= one <= most.get(name, math.inf)):
                limit = f"at least {lowest:g}" if one < lowest else f"at most {most[name]:g}"
                raise UserError(f"{source}: expected {name} to be {limit}, found {one:g}; correct it")


def flat(config: ConfigDict) -> dict:
    """Every field by its full name, such as `optimizer.b1`, in the order of `default()`."""
    fields = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            fields |= {f"{name}.{inner}": one for inner, one in flat(value).items()}
        else:
            fields[name] = value
    return fields


def as_json(config: ConfigDict) -> dict:
    """The flat fields, as JSON gives them back."""
    return json.loads(json.dumps(flat(config)))


def check_resumable(before: dict, config: ConfigDict, where: str) -> None:
    """Check that a run that goes on is the one that was begun.

    Args:
        before: `as_json` of the config it was begun with.
        config: of now.
        where: the run's folder, for the message.

    Raises:
        UserError: a field differs that may not.
    """
    now = as_json(config)
    before = as_json(default()) | before  # a field that was not there yet: as its default
    changed = [
        name
        for name in sorted(now.keys() | before.keys())
        if now.get(name) != before.get(name) and not _may_change(name, config)
    ]
    if changed:
        name = changed[0]
        more = f" (and {', '.join(changed[1:])})" if len(changed) > 1 else ""
        raise UserError(
            f"{where}: was begun with {name} = {before.get(name)!r}, found {now.get(name)!r}{more}; go on with the "
            "first, or give another --workdir"
        )


def _may_change(name, config):
    if name in _OF_COSINE and config.schedule.name == "cosine":
        return False
    if name == "data.grid":  # the stream makes its maps where they belong; it is what the weights' card says, no more
        return config.data.source == "stream" and not config.data.stream.entries
    return name in MUTABLE_ON_RESUME or name.split(".")[0] in MUTABLE_ON_RESUME


def _check_numbers(source, name, value, like):
    if isinstance(like, tuple):
        if not isinstance(value, tuple) or not value or any(isinstance(one, (str, bool)) for one in value):
            raise UserError(f"{source}: expected {name} to be numbers such as {like}, found {value!r}; correct it")
        if name.startswith("data.stream.") and (len(value) != 2 or value[0] > value[1]):
            raise UserError(
                f"{source}: expected {name} to run from a number up to another, found {value!r}; correct it"
            )
    elif value is None or any(isinstance(like, one) != isinstance(value, one) for one in (bool, str)):
        raise UserError(f"{source}: expected {name} to be like {like!r}, found {value!r}; correct it")
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, float) and not math.isfinite(one):
            raise UserError(f"{source}: expected {name} to be finite, found {one}; correct it")


def _one_line(error):
    text = " ".join(str(error).split())
    return re.sub(r"Error whilst parsing config file: Traceback.* (\w+Error: )", r"\1", text)
