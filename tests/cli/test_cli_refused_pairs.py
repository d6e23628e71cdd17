"""Maps that are not a pair, masks that do not fit, and invalid options."""

import gzip
import os
import shutil

import numpy as np
import pytest
from helpers.cli import assert_refused, densities, run_crefjax, write

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
def test_maps_on_different_grids_are_refused(command, change, pair, commands, workdir):
    change(pair[1])
    assert_refused(workdir, *commands(command, *pair), names="half_2.mrc")


def test_message_of_different_grids_has_both(pair, workdir):
    other_shape(pair[1])
    assert_refused(workdir, "fsc", *pair, names=("20", "17", "23", "24"))
    other_voxel_size(pair[1])
    assert_refused(workdir, "fsc", *pair, names=("1.5", "1.6"))


def same_name(path, workdir):
    return path


def other_spelling(path, workdir):
    return f"./out/../{path.name}"


def soft_link(path, workdir):
    (workdir / "link.mrc").symlink_to(path.name)
    return workdir / "link.mrc"


def hard_link(path, workdir):
    os.link(path, workdir / "link.mrc")
    return workdir / "link.mrc"


def copy(path, workdir):
    return shutil.copy(path, workdir / "copy.mrc")


def compressed_copy(path, workdir):
    (workdir / "copy.mrc.gz").write_bytes(gzip.compress(path.read_bytes()))
    return workdir / "copy.mrc.gz"


def copy_with_another_header(path, workdir):
    return write(workdir / "copy.mrc", densities()[0], labels=[b"not the same file"], axes=(3, 1, 2))


SAME = [same_name, other_spelling, soft_link, hard_link, copy, compressed_copy, copy_with_another_header]


@pytest.mark.parametrize("command", ["denoise", "mask"])
@pytest.mark.parametrize("again", SAME)
def test_map_is_not_a_pair_with_itself(command, again, pair, commands, workdir):
    twin = again(pair[0], workdir)
    assert_refused(workdir, *commands(command, pair[0], twin), names="same")
    assert_refused(workdir, *commands(command, twin, pair[0]), names="same")


@pytest.mark.parametrize("again", SAME)
def test_fsc_of_a_map_with_itself_is_reported(again, pair, commands, workdir):
    outcome = run_crefjax(*commands("fsc", pair[0], again(pair[0], workdir)))
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
def test_invalid_mask_is_refused(command, mask, pair, commands, workdir):
    write(workdir / "mask.mrc", BAD_MASKS[mask])
    assert_refused(workdir, *commands(command, *pair), "--mask", workdir / "mask.mrc", names="mask.mrc")


@pytest.mark.parametrize("command", ["denoise", "fsc"])
def test_mask_file_that_is_not_a_map_is_refused(command, pair, commands, workdir):
    assert_refused(workdir, *commands(command, *pair), "--mask", "nowhere.mrc", names="nowhere.mrc")
    (workdir / "mask.mrc").write_text("a mask\n" * 300)
    assert_refused(workdir, *commands(command, *pair), "--mask", "mask.mrc", names="mask.mrc")
    (workdir / "mask.mrc").write_bytes(write(workdir / "whole.mrc", half_mask()).read_bytes()[:9000])
    assert_refused(workdir, *commands(command, *pair), "--mask", "mask.mrc", names="mask.mrc")
    assert_refused(workdir, *commands(command, *pair), "--mask", workdir, names=workdir.name)


@pytest.mark.parametrize("command", ["denoise", "fsc"])
def test_mask_of_another_voxel_size_is_refused(command, pair, commands, workdir):
    write(workdir / "mask.mrc", half_mask(), voxel=3.0)
    assert_refused(workdir, *commands(command, *pair), "--mask", "mask.mrc", names=("mask.mrc", "1.5", "3"))


@pytest.mark.parametrize("option", [["--halves"], ["--mask", "auto"]])
def test_option_that_needs_two_half_maps_is_refused_with_one(option, pair, workdir, weights):
    message = assert_refused(workdir, "denoise", pair[0], "-o", "out.mrc", "--weights", weights, *option)
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
def test_invalid_option_value_is_refused(command, option, value, pair, commands, workdir):
    message = assert_refused(workdir, *commands(command, *pair), f"{option}={value}")
    assert any(word in message for word in WORDS[option])


def test_threshold_above_every_voxel_is_refused(pair, commands, workdir):
    assert_refused(workdir, *commands("mask", *pair), "--threshold", "1000", names="1000")


def test_too_little_memory_reports_the_memory_needed(pair, commands, workdir):
    message = assert_refused(workdir, *commands("denoise", *pair), "--max-memory", "0.001")
    assert "GiB" in message


def test_missing_gpu_is_refused(pair, commands, workdir):
    import jax

    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("this machine has a GPU")
    message = assert_refused(workdir, *commands("denoise", *pair), "--device", "gpu")
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
def test_invalid_command_line_is_refused(words, pair, workdir):
    assert_refused(workdir, *words)
