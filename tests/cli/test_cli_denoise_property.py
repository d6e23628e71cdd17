"""The denoised map has grid and header of the half-maps, for random grids and headers."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import densities, labels_of, read, run_ok, valid, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

printable = st.characters(min_codepoint=33, max_codepoint=126)
words = st.fixed_dictionaries(
    {
        "axes": st.permutations((1, 2, 3)).map(tuple),
        "voxel": st.floats(0.25, 12, width=32),
        "origin": st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 3),
        "nstart": st.tuples(*[st.integers(-1000, 1000)] * 3),
        "labels": st.lists(st.text(printable, min_size=1, max_size=80).map(str.encode), max_size=9),
        "extended": st.binary(max_size=200).map(lambda raw: raw + bytes(-len(raw) % 4)),
        "ispg": st.sampled_from([1, 1, 4]),
    }
)
SHAPES = [tuple(shape) for shape in np.random.default_rng(3).integers(9, 27, (4, 3)).tolist()]  # each is compiled once


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.sampled_from(SHAPES),
    words=words,
    seed=st.integers(0, 99),
    suffix=st.sampled_from(["", "", ".gz", ".bz2"]),
    scale=st.sampled_from([[], ["--scale", "input"]]),
)
def test_output_has_grid_and_header_of_half_map_1(shape, words, seed, suffix, scale, weights):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        halves = densities(shape, seed=seed)
        pair = [write(folder / f"h{n}.mrc{suffix}", data, **words) for n, data in enumerate(halves, 1)]
        raw = [path.read_bytes() for path in pair]
        run_ok("denoise", *pair, "-o", folder / "out.mrc", "--weights", weights, *scale)
        assert [path.read_bytes() for path in pair] == raw
        assert valid(folder / "out.mrc")
        data, h = read(folder / "out.mrc")
        first = read(pair[0])[1]
        extended = (folder / "out.mrc").read_bytes()[1024 : 1024 + int(h.nsymbt)]
    for field in ("nx", "ny", "nz", "mx", "my", "mz", "nxstart", "nystart", "nzstart", "mapc", "mapr", "maps", "ispg"):
        assert h[field] == first[field], field
    for field in ("cella", "cellb", "origin"):
        assert h[field].tolist() == first[field].tolist(), field
    assert extended == words["extended"]
    assert labels_of(h)[:-1] == words["labels"]
    assert b"crefjax" in labels_of(h)[-1]
    full = np.mean([half.astype("f8") for half in halves], axis=0)
    assert data.shape == shape
    assert data.mean() == pytest.approx(full.mean(), rel=1e-4, abs=1e-5)
    if scale:
        assert data.std() == pytest.approx(full.std(), rel=1e-4)
    else:  # measured within a mask; outside, the output of an untrained network is arbitrary
        assert 0.5 < data.std() / full.std() < 2
