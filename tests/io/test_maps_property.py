"""Any map that is read and written is read unchanged by mrcfile."""

import tempfile
from pathlib import Path

import mrcfile
import numpy as np
from helpers.mrc_bytes import MODES, mrc, valid, xyz
from hypothesis import given, settings
from hypothesis import strategies as st

from crefjax.io.maps import read_map, write_map

COORDINATES = st.integers(-300, 300)
TRIPLES = st.tuples(COORDINATES, COORDINATES, COORDINATES)
LABELS = st.binary(min_size=1, max_size=80).filter(lambda label: label.rstrip(b"\0").strip())
EXTENDED = st.one_of(st.just(b""), st.binary(max_size=300), st.just(b"X,  Y,  Z".ljust(80)))
WORDS = st.fixed_dictionaries(
    {
        "n": st.tuples(*[st.integers(2, 7)] * 3),
        "axes": st.permutations((1, 2, 3)).map(tuple),
        "mode": st.sampled_from(sorted(MODES)),
        "nstart": TRIPLES,
        "origin": st.one_of(st.just((0.0,) * 3), TRIPLES.map(lambda t: tuple(v / 4 for v in t))),
        "m": st.one_of(st.none(), st.tuples(*[st.integers(2, 400)] * 3)),
        "ispg": st.sampled_from([0, 1, 19, 400]),
        "extended": EXTENDED,
        "exttyp": st.sampled_from([bytes(4), b"CCP4", b"FEI1", b"SERI", b"what", b"\xff\0\1\2"]),
        "extra2": st.binary(min_size=84, max_size=84),
        "nversion": st.sampled_from([0, 20140, 20141, -7]),
        "labels": st.lists(LABELS, max_size=10).map(tuple),
        "nlabl": st.one_of(st.none(), st.integers(-1, 99)),
        "stats": st.sampled_from([(0.0, -1.0, -2.0), (5.0, 6.0, 7.0), (np.nan,) * 3]),
    }
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from("<>"), WORDS, st.sampled_from([0.25, 1.0, 13.5]), st.integers(0, 99))
def test_written_map_is_read_back_unchanged(order, words, voxel_size, seed):
    m = words["m"] or xyz(words["n"], words["axes"])
    words = {**words, "m": m, "cell": tuple(voxel_size * count for count in m)}
    data = np.random.default_rng(seed).integers(0, 120, np.prod(words["n"]))
    data[:2] = 0, 121  # never constant
    content = mrc(order, data=data, **words)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.mrc", Path(folder) / "out.mrc"
        source.write_bytes(content)
        map_ = read_map(source)
        write_map(out, map_, label="crefjax")
        assert source.read_bytes() == content
        assert valid(out)
        with mrcfile.open(out) as written:
            check(written, words, data, order)
        assert map_.voxel_size == voxel_size
        start = tuple(voxel_size * v for v in xyz(words["nstart"], words["axes"]))
        assert map_.origin == (words["origin"] if any(words["origin"]) else start)


def check(written, words, data, order):
    header = written.header
    assert header.mode.dtype.byteorder.replace("=", "<") == order
    assert written.data.dtype == np.dtype(order + "f4")
    np.testing.assert_array_equal(written.data, data.reshape(words["n"][::-1]))
    assert (header.nx, header.ny, header.nz) == words["n"]
    assert (header.mx, header.my, header.mz) == words["m"]
    assert header.cella.tolist() == words["cell"]
    assert (header.nxstart, header.nystart, header.nzstart) == words["nstart"]
    assert header.origin.tolist() == words["origin"]
    assert (header.mapc, header.mapr, header.maps) == words["axes"]
    assert header.ispg == words["ispg"]
    assert header.extra2.tobytes() == words["extra2"]
    assert written.extended_header.tobytes() == words["extended"]
    if words["exttyp"] in (b"CCP4", b"FEI1", b"SERI"):
        assert header.exttyp == words["exttyp"]
    kept = [label.rstrip(b"\0") for label in words["labels"][:9]]
    assert list(header.label[: len(kept)]) == kept
    assert header.label[len(kept)].strip() == b"crefjax"
    assert header.nlabl == len(kept) + 1
    assert (header.dmin, header.dmax) == (0, 121)
    np.testing.assert_allclose([header.dmean, header.rms], [data.mean(), data.std()], rtol=1e-6)
