"""Two maps that are no pair, masks that do not fit, and options that make no sense."""

import gzip
import os
import shutil

import numpy as np
import pytest
from helpers.cli import crefjax, densities, refused, write

COMMANDS = ["denoise", "fsc", "mask"]


def other_shape(path):
    write(path, densities((20, 17, 24))[1])


def turned_shape(path):
    write(path, densities((23, 17, 20))[1])


def other_voxel_size(path):
    write(path, densities()[1], voxel=1.6)


def other_origin(path):
    write(path, densities()[1], origin=(3, 0, 0))


def other_start(path):
    write(path, densities()[1], nstart=(0, 0, 4))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("change", [other_shape, turned_shape, other_voxel_size, other_origin, other_start])
def test_maps_on_different_grids_are_refused(command, change, pair, commands, here):
    change(pair[1])
    refused(here, *commands(command, *pair), names="half_2.mrc")


def test_message_of_different_grids_has_both(pair, here):
    other_shape(pair[1])
    refused(here, "fsc", *pair, names=("20", "17", "23", "24"))
    other_voxel_size(pair[1])
    refused(here, "fsc", *pair, names=("1.5", "1.6"))


def same_name(path, here):
    return path


def other_spelling(path, here):
    return f"./out/../{path.name}"


def soft_link(path, here):
    (here / "link.mrc").symlink_to(path.name)
    return here / "link.mrc"


def hard_link(path, here):
    os.link(path, here / "link.mrc")
    return here / "link.mrc"


def copy(path, here):
    return shutil.copy(path, here / "copy.mrc")


def compressed_copy(path, here):
    (here / "copy.mrc.gz").write_bytes(gzip.compress(path.read_bytes()))
    return here / "copy.mrc.gz"


def copy_with_another_header(path, here):
    return write(here / "copy.mrc", densities()[0], labels=[b"not the same file"], axes=(3, 1, 2))


SAME = [same_name, other_spelling, soft_link, hard_link, copy, compressed_copy, copy_with_another_header]


@pytest.mark.parametrize("command", ["denoise", "mask"])
@pytest.mark.parametrize("again", SAME)
def test_a_map_is_no_pair_with_itself(command, again, pair, commands, here):
    twin = again(pair[0], here)
    refused(here, *commands(command, pair[0], twin), names="same")
    refused(here, *commands(command, twin, pair[0]), names="same")


@pytest.mark.parametrize("again", SAME)
def test_fsc_of_a_map_with_itself_is_never_a_silent_result(again, pair, commands, here):
    outcome = crefjax(*commands("fsc", pair[0], again(pair[0], here)))
    assert "same" in outcome.err
    assert "Traceback" not in outcome.err


def half_mask(shape=(20, 17, 23)):
    mask = np.zeros(shape, "f4")
    mask[4:-4, 4:-4, 4:-4] = 1
    return mask


def mask_of(value):
    mask = half_mask()
    mask[10, 8, 11] = value
    return mask


BAD_MASKS = {
    "zeros": np.zeros((20, 17, 23), "f4"),
    "other shape": half_mask((20, 17, 24)),
    "turned": half_mask((23, 17, 20)),
    "above 1": mask_of(1.5),
    "below 0": mask_of(-0.5),
    "NaN": mask_of(np.nan),
    "infinite": mask_of(np.inf),
    "a map": densities()[0],
}


@pytest.mark.parametrize("command", ["denoise", "fsc"])
@pytest.mark.parametrize("mask", BAD_MASKS)
def test_mask_that_is_none_is_refused(command, mask, pair, commands, here):
    write(here / "mask.mrc", BAD_MASKS[mask])
    refused(here, *commands(command, *pair), "--mask", here / "mask.mrc", names="mask.mrc")


@pytest.mark.parametrize("command", ["denoise", "fsc"])
def test_mask_file_that_is_no_map_is_refused(command, pair, commands, here):
    refused(here, *commands(command, *pair), "--mask", "nowhere.mrc", names="nowhere.mrc")
    (here / "mask.mrc").write_text("a mask\n" * 300)
    refused(here, *commands(command, *pair), "--mask", "mask.mrc", names="mask.mrc")
    (here / "mask.mrc").write_bytes(write(here / "whole.mrc", half_mask()).read_bytes()[:9000])
    refused(here, *commands(command, *pair), "--mask", "mask.mrc", names="mask.mrc")
    refused(here, *commands(command, *pair), "--mask", here, names=here.name)


@pytest.mark.parametrize("command", ["denoise", "fsc"])
def test_mask_of_another_voxel_size_is_refused(command, pair, commands, here):
    write(here / "mask.mrc", half_mask(), voxel=3.0)
    refused(here, *commands(command, *pair), "--mask", "mask.mrc", names=("mask.mrc", "1.5", "3"))


@pytest.mark.parametrize("option", [["--halves"], ["--mask", "auto"]])
def test_what_needs_two_half_maps_is_refused_with_one(option, pair, here, weights):
    message = refused(here, "denoise", pair[0], "-o", "out.mrc", "--weights", weights, *option)
    assert "half-map" in message


BAD_VALUES = [
    *(("denoise", "--max-memory", value) for value in ("0", "-1", "nan", "inf", "much", "0.001", "")),
    *(("denoise", "--scale", value) for value in ("1", "output")),
    *(("denoise", "--device", value) for value in ("tpu", "0")),
    *(("mask", "--lowpass", value) for value in ("0", "-15", "nan", "inf", "low")),
    *(("mask", "--threshold", value) for value in ("nan", "inf", "high")),
    *(("mask", "--extend", value) for value in ("-3", "nan", "inf", "far")),
    *(("mask", "--soft-edge", value) for value in ("-6", "nan", "inf", "soft")),
]


WORDS = {option: (option,) for _, option, _ in BAD_VALUES}
WORDS["--max-memory"] += ("memory",)
WORDS["--lowpass"] += ("low-pass",)
WORDS["--extend"] += ("extension",)
WORDS["--soft-edge"] += ("soft edge",)


@pytest.mark.parametrize(("command", "option", "value"), BAD_VALUES)
def test_option_value_that_makes_no_sense_is_refused(command, option, value, pair, commands, here):
    message = refused(here, *commands(command, *pair), f"{option}={value}")
    assert any(word in message for word in WORDS[option])


def test_threshold_above_every_voxel_is_refused(pair, commands, here):
    refused(here, *commands("mask", *pair), "--threshold", "1000", names="1000")


def test_too_little_memory_says_how_much_is_needed(pair, commands, here):
    message = refused(here, *commands("denoise", *pair), "--max-memory", "0.001")
    assert "GiB" in message


def test_gpu_where_there_is_none_is_refused(pair, commands, here):
    import jax

    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("this machine has a GPU")
    message = refused(here, *commands("denoise", *pair), "--device", "gpu")
    assert "GPU" in message or "gpu" in message


@pytest.mark.parametrize(
    "words",
    [
        ["denoise"],
        ["denoise", "half_1.mrc", "half_2.mrc"],
        ["denoise", "half_1.mrc", "half_2.mrc", "half_3.mrc", "-o", "out.mrc"],
        ["mask", "half_1.mrc", "-o", "out.mrc"],
        ["mask", "half_1.mrc", "half_2.mrc"],
        ["fsc", "half_1.mrc"],
        ["weights", "import", "arrays.npz"],
        ["denoize"],
        ["denoise", "half_1.mrc", "half_2.mrc", "-o", "out.mrc", "--sharpen"],
    ],
)
def test_command_line_that_is_not_understood_is_refused(words, pair, here):
    refused(here, *words)
