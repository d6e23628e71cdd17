"""The published weights on a benchmark entry; skipped without the shared folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import read, relative, run_ok, valid

SHARED = Path(__file__).parents[2].parent / "shared"
BENCH = SHARED / "bench"
ARRAYS = SHARED / "reference" / "crefdenoiser_epoch192_weights.npz"

pytestmark = pytest.mark.skipif(not (BENCH.is_dir() and ARRAYS.is_file()), reason="no shared folder beside the project")


@pytest.mark.parametrize("case", ["7yc8", "8tze"])
def test_published_network_gives_the_published_output(workdir, case):
    """The output agrees best with the truth at no shift."""
    entry = BENCH / case
    halves = [entry / f"half_map_{n}.mrc" for n in (1, 2)]
    before = [half.read_bytes() for half in halves]
    run_ok("weights", "import", ARRAYS, "-o", "published")
    run_ok("denoise", *halves, "-o", "out.mrc", "--weights", "published", "--scale", "input")
    assert [half.read_bytes() for half in halves] == before
    assert valid("out.mrc")
    output, truth = read("out.mrc")[0], read(entry / "truth.mrc")[0]
    assert relative(output, read(entry / "outputs" / "crefdenoiser" / "full.mrc")[0]) < 2e-3
    spectrum = np.fft.fftn(output - output.mean()) * np.fft.fftn(truth - truth.mean()).conj()
    assert np.fft.ifftn(spectrum).real.argmax() == 0


@pytest.mark.parametrize("pair", ["npc", "microtubule_13pf"])
def test_real_pairs_go_through_mask_fsc_and_denoise(workdir, pair):
    """Noise decreases, the structure is not shifted, and under the mask nothing correlates at Nyquist."""
    halves = [SHARED / "halfmaps" / pair / f"half_map_{n}.mrc" for n in (1, 2)]
    run_ok("weights", "import", ARRAYS, "-o", "published")
    run_ok("mask", *halves, "-o", "mask.mrc")
    run_ok("fsc", *halves, "--mask", "mask.mrc", "--json", "fsc.json")
    curve = json.loads(Path("fsc.json").read_text())["fsc"]
    assert min(curve[1:5]) > 0.9
    assert max(map(abs, curve[-2:])) < 0.2
    run_ok("denoise", *halves, "-o", "out.mrc", "--weights", "published", "--halves")
    first, second = (read(half)[0].astype(np.float64) for half in halves)
    output, out_1, out_2 = (read(name)[0] for name in ("out.mrc", "out_half_map_1.mrc", "out_half_map_2.mrc"))
    full = (first + second) / 2
    assert (out_1 - out_2).std() / output.std() < 0.85 * (first - second).std() / full.std()
    assert np.corrcoef(full.ravel(), output.ravel())[0, 1] > 0.95
    spectrum = np.fft.fftn(full - full.mean()) * np.fft.fftn(output - output.mean()).conj()
    assert np.fft.ifftn(spectrum).real.argmax() == 0
