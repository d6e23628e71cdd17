import importlib.util

import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.models.unet3d import UNet3DConfig
from crefjax.weights.crefdenoiser import import_checkpoint


def arrays(by_array=True):
    """Arrays of the paper's network under the names of an `.npz`; every one has its own number in it."""
    found = {}
    for i, layer in enumerate(UNet3DConfig().layers()):
        shape = (3, 3, 3, layer.channels_in, layer.channels_out)
        kernel, bias = (2 * i, 2 * i + 1) if by_array else (i, i)
        found[f"{kernel:02d}_kernel"] = np.full(shape, i, np.float32)
        found[f"{bias:02d}_bias"] = np.full(layer.channels_out, -i, np.float32)
    return found


def save(folder, found):
    np.savez(folder / "w.npz", **found)
    return folder / "w.npz"


@pytest.mark.parametrize("by_array", [True, False])
def test_npz_numbered_by_array_or_by_layer(tmp_path, by_array):
    parameters, config, about = import_checkpoint(save(tmp_path, arrays(by_array)))
    assert config == UNet3DConfig()
    for i, layer in enumerate(config.layers()):
        assert np.all(parameters[layer.name]["kernel"] == i)
        assert np.all(parameters[layer.name]["bias"] == -i)
    assert "redistribute" in about["license"]


def without(found):
    del found["10_kernel"]


def renamed(found):
    found["weights"] = found.pop("10_kernel")


def reshaped(found):
    found["10_kernel"] = np.zeros((3, 3, 3, 16, 17), np.float32)


def not_a_number(found):
    found["10_kernel"] = np.full((3, 3, 3, 16, 16), np.nan, np.float32)


def doubled(found):
    found["11_kernel"] = found.pop("11_bias")


def in_float64(found):
    found["10_kernel"] = found["10_kernel"].astype(np.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without, "expected 36 arrays, found 35"),
        (renamed, "named NN_kernel"),
        (reshaped, r"10_kernel of shape \(3, 3, 3, 16, 16\), found \(3, 3, 3, 16, 17\)"),
        (not_a_number, "finite"),
        (doubled, "11_kernel"),
        (in_float64, "float32"),
    ],
)
def test_arrays_of_another_network_are_refused(tmp_path, change, message):
    found = arrays()
    change(found)
    with pytest.raises(UserError, match=message) as caught:
        import_checkpoint(save(tmp_path, found))
    assert "w.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        import_checkpoint(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match="cannot be read"):
        import_checkpoint(tmp_path / "text.npz")
    with pytest.raises(UserError, match=r"found no prefix\.index"):
        import_checkpoint(tmp_path / "prefix")


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_without_tensorflow_the_message_says_how_to_install_it(tmp_path):
    (tmp_path / "prefix.index").write_bytes(b"")
    with pytest.raises(UserError, match=r"crefjax\[published\]"):
        import_checkpoint(tmp_path / "prefix")


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs the extra `published`")
def test_tensorflow_checkpoint_is_the_same_as_the_npz(shared, tmp_path):
    folder = shared / "reference"
    expected, _, _ = import_checkpoint(folder / "crefdenoiser_epoch192_weights.npz")
    for name in ("saved-model-epoch-192", "saved-model-epoch-192.index"):
        found, _, _ = import_checkpoint(folder / name)
        for layer, each in expected.items():
            for array in ("kernel", "bias"):
                np.testing.assert_array_equal(found[layer][array], each[array])
    (tmp_path / "cut.index").write_bytes((folder / "saved-model-epoch-192.index").read_bytes()[:300])
    with pytest.raises(UserError, match="cannot be read"):
        import_checkpoint(tmp_path / "cut")
