"""Every setting of a training run, with its default: the paper's; and the shorter runs of `demo` and `finetune`.

A file in `experiments/configs/` takes `default()`, changes a few fields, and returns the result from `get_config()`.
"""

import dataclasses
import json
import math
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.models import NetworkConfig, import_own, load_model
from crefjax.simulate.stream import config_fields

# Fields of earlier versions, and their names today.
_RENAMED = {"data.stream.centre": "data.stream.center", "settings.grey": "settings.gray"}

# Fields that may change when a run is resumed, alone or with all fields below them: none of them affects what a step
# computes from its state and its batch. `epochs` and `steps` set the length of a cosine, and may not change with it.
MUTABLE_ON_RESUME = (
    *("epochs", "steps", "minutes", "devices", "platform", "log_every", "evaluation", "checkpoint"),
    *("data.dataset.folder", "data.dataset.threads", "data.entries.folders", "data.labeled.folders"),
    "data.images.folders",
    "data.stream.models",  # their location; the stream's state identifies them
)
_LENGTH_OF_COSINE = ("epochs", "steps")

REQUIRED = "<required>"  # value of `weights` in a config that needs weights to start from

SOURCES = ("dataset", "stream", "entries")
SCHEDULES = ("exponential", "cosine", "cycles", "constant")
OPTIMIZERS = ("adam", "adamw", "muon", "sgd")


def default(network: str = "unet3d", task: str = "denoising") -> ConfigDict:
    """Return the config of the paper's training (Agarwal et al. 2024), except for its dataset.

    Args:
        network: Name of a network in `crefjax.models.MODELS`, or a module that defines one; `config.network` has its
            fields.
        task: Name of a task in `crefjax.training.task.TASKS`, or a module that defines one; `config.settings` has the
            fields of its `SETTINGS`.

    Raises:
        ValueError: There is no network of this name.
    """
    c = ConfigDict()
    c.task = task  # one of crefjax.training.task.TASKS, or a module
    c.seed = 0  # of the initial parameters and of every random choice in the data
    c.batch = 6  # samples in a step, over all devices
    c.epochs = 195  # number of epochs, if `steps` is 0
    c.steps = 0  # number of steps; 0: as many as the epochs have
    c.epoch_steps = 0  # steps in an epoch; 0: one pass through the dataset (must be given for an endless stream)
    c.minutes = 0.0  # maximum wall time, minutes, added up when a run is resumed; 0: no limit
    c.devices = 0  # number of devices; 0: as many as are available and divide the batch
    c.platform = ""  # cpu or gpu; empty: JAX's choice
    c.log_every = 10  # steps between two lines of metrics.jsonl
    c.weights = ""  # a weights folder, or its name, to start from; empty: random parameters
    c.average = (
        0.0  # decay of the exponential moving average of the parameters, which is evaluated and exported; 0: none
    )

    c.network = network_fields(load_model(network).config())  # its name, and the fields of its config class
    c.settings = ConfigDict(getattr(import_own(task), "SETTINGS", {}))  # of a task outside the package, its own
    _add_data(c)
    _add_stream(c)
    _add_losses(c)
    _add_optimization(c)

    c.evaluation = ConfigDict()
    c.evaluation.every_epochs = 1  # epochs between two evaluations; 0: none
    c.evaluation.patience = 0  # evaluations without improvement after which the run ends; 0: no limit

    c.checkpoint = ConfigDict()
    c.checkpoint.every_steps = 0  # steps between two checkpoints, in addition to one after each epoch; 0: none
    c.checkpoint.every_minutes = 10.0  # minutes between two, likewise; 0: none
    c.checkpoint.keep = 3  # number of the newest that are kept, in addition to the best
    return c.lock()


def _add_data(c):
    c.data = ConfigDict()
    c.data.source = "dataset"  # dataset, stream, or entries: one of the three below
    c.data.patch = 96  # side of the patches, voxels, for stream and entries; a dataset has its own

    c.data.grid = 0.0  # voxels that the resolution spans on the working grid; 0: maps as they are
    # `crefjax denoise` brings maps to the grid on which the network was trained. With a grid, maps are standardized by
    # their solvent and within their mask (`crefjax.data.grid`), otherwise as a whole.

    c.data.dataset = ConfigDict()
    c.data.dataset.folder = "dataset"  # written by `crefjax prepare`
    c.data.dataset.rotations = True  # whether to rotate each patch by one of the 24 rotations of the cube
    c.data.dataset.threads = 4  # threads that read ahead

    c.data.entries = ConfigDict()
    c.data.entries.folders = ""  # entry folders, names or patterns with *, separated by commas
    c.data.entries.held_out = 0.2  # share of each mask's volume that is used for evaluation only
    c.data.entries.held_out_patches = 16  # number of patches of each entry for evaluation
    c.data.entries.rotations = True  # as for a dataset

    c.data.labeled = ConfigDict()  # for the task classification, with patches of `data.patch`
    c.data.labeled.folders = ""  # folders of labeled maps, names or patterns with *, separated by commas
    c.data.labeled.held_out = ""  # models whose maps are used for evaluation only, separated by commas
    c.data.labeled.gain = (1.0, 1.0)  # range of the factor by which density is multiplied
    c.data.labeled.held_out_patches = 48  # number of patches for evaluation
    c.data.labeled.structure_weight = 40.0  # weight of a voxel of structure over one of noise in the loss

    c.data.images = ConfigDict()  # for the task images, with crops of `data.patch`
    c.data.images.folders = ""  # sets of `crefjax images simulate`, names or patterns with *, separated by commas
    c.data.images.held_out = 0.1  # share of every set's images, the last ones, that are used for evaluation only
    c.data.images.held_out_patches = 64  # number of crops for evaluation
    c.data.images.turns = True  # whether to turn each crop to one of its 8 orientations, mirror images among them


def _add_stream(c):
    c.data.stream = ConfigDict()
    c.data.stream.models = ""  # files of atomic models, names or patterns with *, separated by commas
    c.data.stream.shares = ""  # share of each pattern, numbers separated by commas; empty: all models alike
    c.data.stream.exclude = ""  # names (without suffix) of models that are not used, separated by commas
    c.data.stream.held_out = ""  # names of models that are used for evaluation only, separated by commas
    c.data.stream.phantoms = 0  # number of additional synthetic models
    c.data.stream.held_out_phantoms = 0  # number of other synthetic models, for evaluation
    c.data.stream.held_out_samples = 24  # number of patches for evaluation
    c.data.stream.held_out_patch = 0  # side of those, voxels, standardized as whole maps; 0: as in training
    c.data.stream.masked = 1.0  # share of the samples whose input is masked; the truth always is
    c.data.stream.gain = (1.0, 1.0)  # factor on a standardized patch, whose standard deviation is not the whole map's
    c.data.stream.level = (1.0, 1.0)  # subtracted share of a patch's mean, which is not the whole map's
    c.data.stream.entries = 0.0  # share of the batches that are patches of `data.entries.folders` instead
    # The ranges from which samples are drawn; `crefjax.simulate.stream.StreamConfig` describes each.
    for name, value in config_fields().items():
        c.data.stream[name] = value


def _add_losses(c):
    """Add the weights of the losses, which `crefjax.losses` describes; a loss of weight 0 is not computed."""
    c.losses = ConfigDict()
    c.losses.cref_l1 = 1.0  # FSC(denoised, full map) against C_ref
    c.losses.cref_l1_masked = 0.0  # the same within the mask
    c.losses.gain_l1 = 0.0  # scale of the output against that of the signal
    c.losses.fsc = 0.0  # FSC of a denoised half-map with the other half-map
    c.losses.n2n_l2 = 0.0  # squared difference of a denoised half-map from the other half-map
    c.losses.n2n_l1 = 0.0  # absolute difference of the same
    c.losses.bias = 0.0  # power of the bias
    c.losses.truth_fsc = 0.0  # FSC(denoised, truth)
    c.losses.truth_fsc_masked = 0.0  # the same within the mask
    c.losses.truth_l2 = 0.0  # squared difference from the truth


def _add_optimization(c):
    c.optimizer = ConfigDict()
    c.optimizer.name = "adam"  # adam, adamw, muon (Jordan 2024; Adam for arrays that are not kernels), or sgd
    c.optimizer.b1 = 0.9  # decay of the mean of gradients; momentum of sgd (for muon's kernels it is 0.95)
    c.optimizer.b2 = 0.999  # decay of the mean of their squares
    c.optimizer.eps = 1e-8  # added to the root of that
    c.optimizer.weight_decay = 0.0  # of adamw
    c.optimizer.clip = 0.0  # largest norm of the whole gradient; 0: no limit
    c.optimizer.accumulate = 1  # steps over which gradients are averaged before the parameters change

    c.schedule = ConfigDict()
    c.schedule.name = "exponential"  # exponential, cosine, cycles, or constant
    c.schedule.rate = 3e-4  # largest learning rate
    c.schedule.cycle_steps = 0  # cycles: steps of each
    c.schedule.decay = 0.7  # exponential: factor on the rate ... (cycles: from one to the next)
    c.schedule.decay_epochs = 10.0  # ... in this number of epochs, continuously
    c.schedule.warmup = 0  # steps in which the rate rises from 0
    c.schedule.final = 0.0  # cosine, cycles: share of the rate that remains at the last step


def network_fields(config: NetworkConfig, **changes) -> ConfigDict:
    """Return `config.network` for a network: its name and its fields.

    Args:
        config: Hyperparameters of the network.
        **changes: Fields with other values.
    """
    return ConfigDict({"name": config.network, **dataclasses.asdict(config), **changes})


def network_config(config: ConfigDict) -> NetworkConfig:
    """Return the hyperparameters of the network that a config asks for.

    Raises:
        UserError: There is no such network, or its fields are invalid.
    """
    fields = config.network.to_dict()
    try:
        return load_model(fields.pop("name")).config(**fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"config: network: {error}") from error


def demo_config() -> ConfigDict:
    """Return the config of a small network on small patches of phantoms, trained in two minutes on two CPU cores."""
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
    """Return the config that adapts weights to one specimen by comparing each denoised half-map to the other half-map.

    A truth is not needed.
    """
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
    """Return the config of a run of minutes with one loss, clipped gradients, and checkpoints after epochs only."""
    c = default()
    c.steps, c.epoch_steps = steps, epoch_steps
    c.losses.cref_l1 = 0.0
    c.losses[loss] = 1.0
    c.optimizer.clip = 1.0
    c.schedule.name, c.schedule.rate, c.schedule.warmup = schedule, rate, warmup
    c.checkpoint.every_minutes = 0.0
    return c


def read_config(file: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Read the config of a file, with fields changed on the command line.

    Args:
        file: Python source with `get_config()`.
        overrides: `--config.FIELD=VALUE`, as one word or two.

    Raises:
        UserError: The file is missing or does not return a config; a field is unknown, or its value is invalid.
    """
    from absl import flags
    from ml_collections import config_flags

    if not Path(file).is_file():
        raise UserError(f"{file}: expected a config (see experiments/configs), found no such file; check the path")
    argv = ["crefjax train", f"--config={file}", *overrides]
    values = flags.FlagValues()
    sys.modules.pop("config_config", None)  # of an earlier file, whose get_config a file without one would take over
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # write nothing beside the user's file
    try:
        with warnings.catch_warnings():
            # ml_collections calls it to load the file.
            warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
            holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
            remaining = values(argv)[1:]
            config = holder.value
    except flags.Error as error:
        text = re.sub(r"^Unknown command line flag '(.*?)'", r"there is no option --\1", _one_line(error))
        raise UserError(f"--config: {text}; `crefjax/training/config.py` has all fields") from error
    except Exception as error:  # a Python file may raise anything; a mistyped field is among it
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
    if remaining:
        raise UserError(f"crefjax train: expected --config.FIELD=VALUE, found {remaining[0]!r}; correct it")
    check_config(config, file)
    return config


def check_config(config: ConfigDict, source: str = "config") -> None:
    """Check what can be checked of a config by itself.

    Args:
        config: Config of a run.
        source: Its file, for the message.

    Raises:
        UserError: A field is missing, unknown, of another type, or out of its range.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(f"{source}: expected get_config() to return a ConfigDict, found {type(config).__name__}")
    fields = flat(config)
    try:
        expected = flat(_default_like(fields))
    except ValueError as error:
        raise UserError(f"{source}: network.name: {error}") from error
    for name in fields.keys() - expected.keys():
        raise UserError(f"{source}: there is no field {name}; `crefjax/training/config.py` has all fields")
    for name in expected.keys() - fields.keys():
        raise UserError(f"{source}: the field {name} is missing; start from crefjax.training.config.default()")
    for name, value in fields.items():
        _check_type(source, name, value, expected[name])
    if fields["weights"] == REQUIRED:
        raise UserError(f"{source}: expected weights to start from, found none; set weights to a name or a folder")
    choices = {
        "data.source": SOURCES,
        "schedule.name": SCHEDULES,
        "optimizer.name": OPTIMIZERS,
        "network.compute_dtype": ("float32", "bfloat16"),
        "platform": ("", "cpu", "gpu"),
    }
    for name, allowed in choices.items():
        if name in fields and fields[name] not in allowed:
            raise UserError(
                f"{source}: expected {name} to be one of {', '.join(filter(None, allowed))}, found {fields[name]!r}"
            )
    least = {"batch": 1, "checkpoint.keep": 1, "log_every": 1, "data.patch": 16, "schedule.decay_epochs": 1e-6}
    least |= {"optimizer.accumulate": 1}
    least |= {"schedule.decay": 1e-6, "data.stream.gain": 1e-3}
    most = {"average": 0.999999, "data.stream.masked": 1, "data.entries.held_out": 0.5, "schedule.final": 1}
    most |= {"data.images.held_out": 0.9}
    most |= {"data.stream.entries": 0.9, "optimizer.b1": 0.999999, "optimizer.b2": 0.9999999}
    for name, value in fields.items():
        lowest = least.get(name, 0)
        signed = name.startswith(("data.stream.noise_", "network."))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not (signed or lowest <= number <= most.get(name, math.inf)):
                limit = f"at least {lowest:g}" if number < lowest else f"at most {most[name]:g}"
                raise UserError(f"{source}: expected {name} to be {limit}, found {number:g}; correct it")


def split_commas(text: str) -> list[str]:
    """Return the parts of a field's text that are separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def flat(config: ConfigDict) -> dict:
    """Return every field by its full name, such as `optimizer.b1`, in the order of `default()`."""
    fields = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            fields |= {f"{name}.{inner}": field for inner, field in flat(value).items()}
        else:
            fields[name] = value
    return fields


def to_json(config: ConfigDict) -> dict:
    """Return the flat fields as JSON reads them back."""
    return json.loads(json.dumps(flat(config)))


def current_names(fields: dict) -> dict:
    """Return flat fields that an earlier version may have written, with today's names."""
    return {_RENAMED.get(name, name): value for name, value in fields.items()}


def check_resumable(before: dict, config: ConfigDict, where: str) -> None:
    """Check that a run may be resumed with a config.

    Args:
        before: `to_json` of the config with which it was started; fields that it lacks have their default.
        config: Config to resume it with.
        where: Folder of the run, for the message.

    Raises:
        UserError: A field differs that may not.
    """
    now = to_json(config)
    before = current_names(before)
    before = to_json(_default_like(before)) | before
    changed = [
        name
        for name in sorted(now.keys() | before.keys())
        if now.get(name) != before.get(name) and not _may_change(name, config)
    ]
    if changed:
        name = changed[0]
        others = f" (and {', '.join(changed[1:])})" if len(changed) > 1 else ""
        raise UserError(
            f"{where}: the run was started with {name} = {before.get(name)!r}, found {now.get(name)!r}{others}; resume "
            "with the first value, or train in another folder"
        )


def _default_like(fields):
    """Return the default config of the network and the task that flat fields name."""
    task = fields.get("task", "denoising")
    return default(fields.get("network.name", "unet3d"), task if isinstance(task, str) else "denoising")


def _may_change(name, config):
    if name in _LENGTH_OF_COSINE and config.schedule.name == "cosine":
        return False
    if name == "data.grid":  # the stream simulates maps on their grid; the field only goes to the weights' card
        return config.data.source == "stream" and not config.data.stream.entries
    return name in MUTABLE_ON_RESUME or name.split(".")[0] in MUTABLE_ON_RESUME


def _check_type(source, name, value, like):
    if isinstance(like, tuple):
        if not isinstance(value, tuple) or not value or any(isinstance(item, (str, bool)) for item in value):
            raise UserError(f"{source}: expected {name} to be numbers such as {like}, found {value!r}; correct it")
        if name.startswith("data.stream.") and (len(value) != 2 or value[0] > value[1]):
            raise UserError(
                f"{source}: expected {name} to be two numbers, the smaller one first, found {value!r}; correct it"
            )
    elif value is None or any(isinstance(like, kind) != isinstance(value, kind) for kind in (bool, str)):
        raise UserError(f"{source}: expected {name} to be a value such as {like!r}, found {value!r}; correct it")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise UserError(f"{source}: expected {name} to be finite, found {number}; correct it")


def _one_line(error):
    text = " ".join(str(error).split())
    return re.sub(r"Error whilst parsing config file: Traceback.* (\w+Error: )", r"\1", text)
