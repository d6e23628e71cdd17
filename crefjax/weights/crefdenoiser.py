"""Import of the published crefDenoiser weights from the authors' TensorFlow checkpoint or an `.npz` of its arrays.

The checkpoint numbers its layers in the order of computation, as `UNet3DConfig.layers` lists them. It has no license,
so it is not part of this package: users import their own copy.
"""

import os
import re
from pathlib import Path

import numpy as np

from crefjax.errors import UserError
from crefjax.models import Parameters
from crefjax.models.unet3d_config import UNet3DConfig, parameter_shapes
from crefjax.weights.store import check_parameters

_VARIABLE = re.compile(r"layer_with_weights-(\d+)/(kernel|bias)/\.ATTRIBUTES/VARIABLE_VALUE")
_ARRAY = re.compile(r"(\d+)_(kernel|bias)")
_EXPECTED_INPUT = "map standardized to mean 0 and standard deviation 1; masked or not; about 1 to 2 Å a voxel"


def import_checkpoint(checkpoint: str | Path) -> tuple[Parameters, UNet3DConfig, dict]:
    """Read weights of the paper's network that were not written by crefjax.

    Args:
        checkpoint: Prefix of a TensorFlow checkpoint (or its `.index` file), or an `.npz` with the arrays
            `NN_kernel` and `NN_bias`, numbered by array (0 to 35) or by layer (0 to 17).

    Returns:
        Parameters, hyperparameters, and the card's texts.

    Raises:
        UserError: The file is missing or unreadable, TensorFlow is not installed, or the arrays are not those of the
            network: every name and shape is checked.
    """
    checkpoint = Path(checkpoint)
    config = UNet3DConfig()
    layers = config.layers()
    if checkpoint.suffix == ".npz":
        arrays, kind = _read_npz(checkpoint, len(layers)), "an .npz of the arrays"
    else:
        arrays, kind = _read_tensorflow(checkpoint), "a TensorFlow checkpoint"
    parameters: Parameters = {}
    names = {}
    for (number, name), (source_name, array) in sorted(arrays.items()):
        layer = layers[number].name if number < len(layers) else f"layer {number}"
        parameters.setdefault(layer, {})[name] = np.ascontiguousarray(array)
        names[layer, name] = source_name
    check_parameters(parameters, parameter_shapes(config), str(checkpoint), names)
    about = {
        "source": f"imported from {checkpoint.name}, {kind}",
        "license": "as the source's; the published crefDenoiser checkpoint carries none, so do not redistribute it",
        "training": "not by crefjax; see the source (crefDenoiser: Agarwal et al. 2024)",
        "expected_input": _EXPECTED_INPUT,
    }
    return parameters, config, about


def _read_npz(path, layer_count):
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; check the path") from error
    except Exception as error:  # zipfile, zlib, pickle, and NumPy raise their own kinds
        raise UserError(f"{path}: expected an .npz file of arrays, cannot be read ({error})") from error
    matches = {name: _ARRAY.fullmatch(name) for name in arrays}
    if bad := [name for name, match in matches.items() if not match]:
        raise UserError(f"{path}: expected arrays named NN_kernel and NN_bias, found {bad[0]!r}")
    if len(arrays) != 2 * layer_count:
        raise UserError(f"{path}: expected {2 * layer_count} arrays, found {len(arrays)}")
    numbers = {name: (int(match[1]), match[2]) for name, match in matches.items()}
    by_array = max(number for number, _ in numbers.values()) >= layer_count
    return {
        (number // 2 if by_array else number, kind): (name, arrays[name]) for name, (number, kind) in numbers.items()
    }


def _read_tensorflow(prefix):
    prefix = prefix.with_suffix("") if prefix.suffix == ".index" else prefix
    if not prefix.with_name(prefix.name + ".index").is_file():
        raise UserError(
            f"{prefix}: expected the prefix of a TensorFlow checkpoint or an .npz file, found no {prefix.name}.index"
        )
    for name, value in (("TF_CPP_MIN_LOG_LEVEL", "3"), ("TF_ENABLE_ONEDNN_OPTS", "0")):
        os.environ.setdefault(name, value)  # or it reports its build at every start
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f"{prefix}: reading a TensorFlow checkpoint needs TensorFlow; install it: pip install 'crefjax[published]'"
        ) from error
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        matches = [_VARIABLE.fullmatch(name) for name in reader.get_variable_to_shape_map()]
        return {(int(match[1]), match[2]): (match[0], reader.get_tensor(match[0])) for match in matches if match}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:160]
        raise UserError(f"{prefix}: expected a TensorFlow checkpoint, cannot be read ({reason})") from error
