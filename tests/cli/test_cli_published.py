"""The published weights on a benchmark entry, where the shared folder is there."""

from pathlib import Path

import numpy as np
import pytest
from cli_material import done, read, relative, valid

SHARED = Path(__file__).parents[2].parent / "shared"
BENCH = SHARED / "bench"
ARRAYS = SHARED / "reference" / "crefdenoiser_epoch192_weights.npz"

pytestmark = pytest.mark.skipif(not (BENCH.is_dir() and ARRAYS.is_file()), reason="no shared folder beside the project")


@pytest.mark.parametrize("case", ["7yc8", "8tze"])
def test_published_network_gives_the_published_output(here, case):
    """And stands where the known truth stands: they agree best at no shift."""
    entry = BENCH / case
    halves = [entry / f"half_map_{n}.mrc" for n in (1, 2)]
    before = [half.read_bytes() for half in halves]
    done("weights", "import", ARRAYS, "-o", "published")
    done("denoise", *halves, "-o", "out.mrc", "--weights", "published", "--scale", "input")
    assert [half.read_bytes() for half in halves] == before
    assert valid("out.mrc")
    output, truth = read("out.mrc")[0], read(entry / "truth.mrc")[0]
    assert relative(output, read(entry / "outputs" / "crefdenoiser" / "full.mrc")[0]) < 2e-3
    spectrum = np.fft.fftn(output - output.mean()) * np.fft.fftn(truth - truth.mean()).conj()
    assert np.fft.ifftn(spectrum).real.argmax() == 0
