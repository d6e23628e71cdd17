"""`crefjax mask`: the soft mask around the body of two half-maps."""

import numpy as np
import pytest
from helpers.cli import densities, labels_of, read, run_ok, valid, write


@pytest.fixture
def ball(workdir):
    """Write half-maps of a ball of radius 8 voxels in a box of 40 x 36 x 44, with noise."""
    random = np.random.default_rng(2)
    z, y, x = np.meshgrid(*(np.arange(n) - n / 2 for n in (40, 36, 44)), indexing="ij")
    radius = np.sqrt(z**2 + y**2 + x**2)
    body = (radius < 8).astype("f4")
    pair = [
        write(workdir / f"h{n}.mrc", (body + 0.5 * random.standard_normal(body.shape)).astype("f4"), voxel=3.0)
        for n in (1, 2)
    ]
    return pair, radius


def run_mask(pair, *more):
    run_ok("mask", *pair, "-o", "mask.mrc", "--overwrite", *more)
    assert valid("mask.mrc")
    return read("mask.mrc")[0]


def test_mask_is_1_within_the_body_and_0_far_from_it(ball):
    pair, radius = ball
    mask = run_mask(pair)
    assert mask.shape == radius.shape
    assert mask.min() == 0
    assert mask.max() == 1
    assert (mask[radius < 7] == 1).all()
    assert not mask[radius > 8 + 3 + 6 + 4].any()
    edge = (mask > 0) & (mask < 1)
    assert edge.any()
    assert np.unique(mask[edge]).size > 5


def test_extension_and_edge_have_the_requested_widths(ball):
    """Each further voxel of extension or edge moves the outer limit by one voxel."""
    pair, radius = ball

    def limits(*more):
        mask = run_mask(pair, "--lowpass", "15", "--threshold", "0.3", *more)
        return radius[mask == 1].max(), radius[mask > 0].max()

    bare = limits("--extend", "0", "--soft-edge", "0")
    assert bare[0] == bare[1]
    wide = limits("--extend", "4", "--soft-edge", "0")
    assert wide[0] == wide[1]
    assert 3 <= wide[0] - bare[0] <= 4.5
    soft = limits("--extend", "4", "--soft-edge", "5")
    assert soft[0] == wide[0]
    assert 4 <= soft[1] - soft[0] <= 5.5


def test_edge_falls_as_a_raised_cosine(ball):
    pair, _ = ball
    mask = run_mask(pair, "--threshold", "0.3", "--extend", "2", "--soft-edge", "6")
    line = mask[20, 18, 22:]
    assert (np.diff(line) <= 1e-6).all()
    near = line[(line > 0) & (line < 1)]
    steps = np.arange(1, near.size + 1)
    expected = 0.5 + 0.5 * np.cos(np.pi * np.clip((steps[:, None] + np.linspace(-1, 1, 41)) / 6, 0, 1))
    assert (abs(expected - near[:, None]).min(axis=1) < 0.02).all()


def test_threshold_is_in_the_maps_units(ball):
    pair, _ = ball
    thresholds = ("0.2", "0.7")
    sizes = [run_mask(pair, "--threshold", t, "--extend", "0", "--soft-edge", "0").sum() for t in thresholds]
    assert sizes[0] > sizes[1] > 0


def test_scale_of_the_maps_does_not_change_the_mask(ball, workdir):
    pair, _ = ball
    large = [
        write(workdir / f"large{n}.mrc", (1000 * read(path)[0]).astype("f4"), voxel=3.0) for n, path in enumerate(pair)
    ]
    np.testing.assert_allclose(run_mask(large), run_mask(pair), atol=1e-4)


def test_mask_has_the_header_of_half_map_1(workdir):
    words = {"axes": (3, 1, 2), "origin": (10, 20, -30.5), "nstart": (1, -2, 3), "labels": [b"one"], "voxel": 2.0}
    pair = [write(workdir / f"h{n}.mrc", data, **words) for n, data in enumerate(densities((20, 17, 23)), 1)]
    mask = run_mask(pair)
    h = read("mask.mrc")[1]
    assert mask.shape == (20, 17, 23)
    assert 0 <= mask.min() <= mask.max() <= 1
    assert (h.mapc, h.mapr, h.maps) == (3, 1, 2)
    assert h.origin.tolist() == (10, 20, -30.5)
    assert (h.nxstart, h.nystart, h.nzstart) == (1, -2, 3)
    assert h.cella.tolist() == (46, 34, 40)
    assert labels_of(h)[0] == b"one"
    assert b"crefjax" in labels_of(h)[-1]


def test_mask_is_accepted_by_other_commands(ball, weights):
    pair, _ = ball
    run_mask(pair)
    run_ok("fsc", *pair, "--mask", "mask.mrc")
    run_ok("denoise", *pair, "-o", "out.mrc", "--mask", "mask.mrc", "--weights", weights)
    assert not read("out.mrc")[0][read("mask.mrc")[0] == 0].any()


def test_command_prints_the_automatic_settings(ball):
    pair, _ = ball
    text = run_ok("mask", *pair, "-o", "mask.mrc").text
    assert "Å" in text
    assert "threshold" in text
