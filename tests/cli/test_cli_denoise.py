"""Outputs of `crefjax denoise` against NumPy."""

from pathlib import Path

import numpy as np
import pytest
from helpers.cli import densities, labels_of, read, relative, run_crefjax, run_ok, tree, valid, write
from reference.network import run_published

AXES = (3, 2, 1)
LABELS = [b"half-map of a refinement", b"second label"]
EXTENDED = bytes(range(256)) * 3


@pytest.fixture
def denoise(pair, weights):
    """Return a function that denoises the pair and returns the (z, y, x) array of the output."""

    def run(*more, inputs=pair, output="out.mrc"):
        before = [path.read_bytes() for path in inputs]
        run_ok("denoise", *inputs, "-o", output, "--weights", weights, *more)
        assert [path.read_bytes() for path in inputs] == before
        return read(output)[0]

    return run


def test_raw_output_is_the_network_output(pair, imported, arrays_file, workdir):
    """The reference is the network in NumPy, given the standardized full map."""
    run_ok("denoise", *pair, "-o", "raw.mrc", "--weights", imported, "--scale", "none")
    with np.load(arrays_file) as arrays:
        full = np.mean([half.astype("f8") for half in densities()], axis=0)
        expected = run_published(arrays, (full - full.mean()) / full.std())
    assert expected.std() > 0.01
    assert relative(read("raw.mrc")[0], expected) < 1e-5


@pytest.mark.parametrize("memory", ["0.6", "100"])
def test_memory_limit_does_not_change_the_result(memory, denoise):
    assert relative(denoise("--max-memory", memory, "--overwrite"), denoise("--overwrite")) < 1e-5


def test_input_scale_keeps_mean_and_std_of_the_full_map(denoise):
    full = np.mean([half.astype("f8") for half in densities()], axis=0)
    output = denoise("--scale", "input")
    assert output.shape == full.shape
    assert output.mean() == pytest.approx(full.mean(), rel=1e-5)
    assert output.std() == pytest.approx(full.std(), rel=1e-5)


def test_input_scale_is_linear_in_the_raw_output(denoise):
    raw, output = denoise("--scale", "none", output="raw.mrc"), denoise("--scale", "input")
    full = np.mean([half.astype("f8") for half in densities()], axis=0)
    assert relative(output, (raw - raw.mean()) / raw.std() * full.std() + full.mean()) < 1e-5


def test_header_is_kept_and_the_file_is_valid(workdir, weights):
    shape = (20, 17, 23)
    words = {"axes": AXES, "origin": (12.5, -3.25, 100), "nstart": (-5, 7, 11), "labels": LABELS, "extended": EXTENDED}
    pair = [write(workdir / f"h{n}.mrc", data, **words) for n, data in enumerate(densities(), 1)]
    run_ok("denoise", *pair, "-o", "out.mrc", "--weights", weights)
    assert valid("out.mrc")
    data, h = read("out.mrc")
    assert data.shape == shape
    assert (h.mapc, h.mapr, h.maps) == AXES
    assert (h.nx, h.ny, h.nz) == (20, 17, 23)
    assert (h.mx, h.my, h.mz) == (23, 17, 20)
    assert h.cella.tolist() == pytest.approx((34.5, 25.5, 30.0))
    assert h.origin.tolist() == (12.5, -3.25, 100)
    assert (h.nxstart, h.nystart, h.nzstart) == (-5, 7, 11)
    assert (h.ispg, h.mode, h.nsymbt, bytes(h.exttyp)) == (1, 2, len(EXTENDED), b"SERI")
    assert (workdir / "out.mrc").read_bytes()[1024 : 1024 + len(EXTENDED)] == EXTENDED
    assert labels_of(h)[:2] == LABELS
    assert len(labels_of(h)) == 3
    assert b"crefjax" in labels_of(h)[2]
    assert (float(h.dmin), float(h.dmax)) == (np.float32(data.min()), np.float32(data.max()))
    assert float(h.dmean) == pytest.approx(data.mean(), abs=1e-5)
    assert float(h.rms) == pytest.approx(data.std(), rel=1e-5)


def test_axis_order_of_the_file_does_not_change_voxels(denoise, workdir):
    turned = [write(workdir / f"turned_{n}.mrc", data, axes=(2, 3, 1)) for n, data in enumerate(densities(), 1)]
    assert relative(denoise(inputs=turned, output="turned.mrc"), denoise()) < 1e-6


SCALES = pytest.mark.parametrize("scale", ["signal", "input"])


@SCALES
def test_output_scales_with_the_map(scale, denoise, workdir):
    large = [write(workdir / f"large_{n}.mrc", 1000 * data) for n, data in enumerate(densities(), 1)]
    assert (
        relative(denoise("--scale", scale, inputs=large, output="large.mrc"), 1000 * denoise("--scale", scale)) < 1e-5
    )


@SCALES
def test_output_follows_a_constant_offset(scale, denoise, workdir):
    lifted = [write(workdir / f"lifted_{n}.mrc", data + 5) for n, data in enumerate(densities(), 1)]
    found, expected = denoise("--scale", scale, inputs=lifted, output="lifted.mrc"), denoise("--scale", scale)
    assert relative(found - 5, expected) < 1e-4


@SCALES
def test_tiny_densities_do_not_vanish(scale, denoise, workdir):
    small = [write(workdir / f"small_{n}.mrc", 1e-9 * data) for n, data in enumerate(densities(), 1)]
    assert (
        relative(denoise("--scale", scale, inputs=small, output="small.mrc"), 1e-9 * denoise("--scale", scale)) < 1e-4
    )


@SCALES
def test_order_of_the_half_maps_does_not_matter(scale, denoise, pair):
    swapped = denoise("--scale", scale, inputs=pair[::-1], output="swapped.mrc")
    assert relative(swapped, denoise("--scale", scale)) < 1e-6


def test_half_maps_are_written_with_a_note_on_resolution(pair, weights, workdir):
    outcome = run_ok("denoise", *pair, "-o", "out.mrc", "--weights", weights, "--halves")
    assert set(tree(workdir)) == {*(path.name for path in pair), "out.mrc", "out_half_map_1.mrc", "out_half_map_2.mrc"}
    assert "resolution" in outcome.text
    assert all(valid(f"out_half_map_{n}.mrc") for n in (1, 2))
    halves = [read(f"out_half_map_{n}.mrc")[0] for n in (1, 2)]
    assert relative(*halves) > 1e-3


def test_denoised_half_maps_match_their_inputs(pair, imported, arrays_file):
    """The reference is the network in NumPy, given each half-map standardized by the moments of the full map."""
    run_ok("denoise", *pair, "-o", "out.mrc", "--weights", imported, "--halves", "--scale", "none")
    with np.load(arrays_file) as arrays:
        full = np.mean([half.astype("f8") for half in densities()], axis=0)
        for n, half in enumerate(densities(), 1):
            expected = run_published(arrays, (half - full.mean()) / full.std())
            assert relative(read(f"out_half_map_{n}.mrc")[0], expected) < 1e-5


def test_single_full_map_is_accepted_with_a_warning(pair, weights, workdir):
    full = np.mean(densities(), axis=0)
    outcome = run_ok("denoise", write(workdir / "full.mrc", full), "-o", "one.mrc", "--weights", weights)
    assert "warning" in outcome.err.lower()
    run_ok("denoise", *pair, "-o", "two.mrc", "--weights", weights, "--scale", "input")
    assert relative(read("one.mrc")[0], read("two.mrc")[0]) < 1e-5


def test_mask_file_is_applied_and_scale_is_measured_within_it(denoise, workdir):
    mask = np.zeros((20, 17, 23), "f4")
    mask[5:15, 3:14, 4:20] = 1
    write(workdir / "mask.mrc", mask)
    full = np.mean([half.astype("f8") for half in densities()], axis=0)
    output = denoise("--mask", "mask.mrc", "--scale", "input")
    inside = mask > 0
    assert not output[~inside].any()
    # The solvent is 0 within a mask, as its level would show the surface of the mask alone.
    assert output[inside].mean() == pytest.approx(full[inside].mean() - full[~inside].mean(), rel=1e-4)
    assert output[inside].std() == pytest.approx(full[inside].std(), rel=1e-4)


def test_automatic_mask_equals_that_of_the_mask_command(denoise, pair, workdir):
    run_ok("mask", *pair, "-o", "mask.mrc")
    automatic = denoise("--mask", "auto")
    assert not automatic[read("mask.mrc")[0] == 0].any()
    assert relative(automatic, denoise("--mask", "mask.mrc", output="by_file.mrc")) < 1e-6


@pytest.mark.parametrize("name", ["in.map", "in.ccp4", "in.mrc.gz", "in.map.bz2", "IN.MRC"])
def test_suffixes_and_compressions_of_inputs(name, denoise, workdir):
    packed = [write(workdir / f"{n}_{name}", data) for n, data in enumerate(densities(), 1)]
    assert relative(denoise(inputs=packed, output="packed.mrc"), denoise()) < 1e-6


@pytest.mark.parametrize("name", ["out.map", "out.ccp4", "out.mrc.gz", "out.map.bz2"])
def test_suffixes_and_compressions_of_outputs(name, denoise):
    assert relative(denoise(output=name), denoise()) < 1e-6
    assert Path(name).read_bytes().startswith({"gz": b"\x1f\x8b", "z2": b"BZh"}.get(name[-2:], b"\x17\0\0"))


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2"])
def test_modes_of_inputs(dtype, workdir, weights):
    """Modes 0, 1, 6 and 12 give the output of the same numbers in mode 2."""
    whole = [np.clip(np.round(20 * data + 40), 0, 127) for data in densities()]
    for kind in (dtype, "f4"):
        pair = [write(workdir / f"{kind}_{n}.mrc", data.astype(kind)) for n, data in enumerate(whole, 1)]
        run_ok("denoise", *pair, "-o", f"{kind}.mrc", "--weights", weights)
    output, h = read(f"{dtype}.mrc")
    assert h.mode == 2
    assert relative(output, read("f4.mrc")[0]) < 1e-5


def test_overwrite_replaces_an_existing_output(denoise, workdir):
    (workdir / "out.mrc").write_text("older")
    first = denoise("--overwrite", "--scale", "none")
    assert relative(denoise("--overwrite"), first) > 1e-3
    assert len(tree(workdir)) == 3


def test_command_reports_device_memory_and_output(pair, weights):
    text = run_crefjax("denoise", *pair, "-o", "out.mrc", "--weights", weights).text
    assert "GiB" in text
    assert "CPU" in text or "GPU" in text
    assert "23" in text
    assert "out.mrc" in text
