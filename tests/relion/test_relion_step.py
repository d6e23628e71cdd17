"""The denoiser's step: what is read and written, with the network and RELION's program left out."""

import sys

import numpy as np
import pytest
from helpers.relion_files import RELION_5, write_job, write_mrc

from crefjax.relion import regularize as step
from crefjax.relion.external import read_volume
from crefjax.relion.regularize import Regularized

SHAPE = (32, 32, 32)
PROGRAM = """#!{python}
import sys, numpy, mrcfile
with mrcfile.new(sys.argv[sys.argv.index("--o") + 1], overwrite=True) as file:
    file.set_data(numpy.full((32, 32, 32), 2, "f4"))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Give a function that does the step for a name and an FSC; the denoised map is 10 times the one without prior."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program").write_text(PROGRAM.format(python=sys.executable))
    (tmp_path / "program").chmod(0o755)
    given = {}

    def fake(job, classical, unregularized, weight, weights, **settings):
        given.update(job=job, classical=classical, weight=weight, settings=settings)
        return Regularized(10 * unregularized, np.ones(17), np.full(17, 0.5), 9, 8.0)

    def do(root, fsc, combine="trailing", *, real=False):
        if not real:
            monkeypatch.setattr(step, "regularize", fake)
        more = RELION_5.format(voxel_size=2, diameter=50)
        star = write_job(tmp_path, root, fsc, box=32, current=28, more=more)
        write_mrc(f"{root}_external_reconstruct.mrc", np.random.default_rng(0).normal(size=SHAPE))
        line = step.regularize_result(star, combine=combine, weights=None, coarsest=15.0, program="./program")
        return line, given

    return do


def test_the_result_of_a_half_is_replaced(run, tmp_path):
    line, given = run("run_it003_half1_class001", np.linspace(1, 0, 17))
    assert line.startswith("trailing: run_it003_half1_class001_external_reconstruct.mrc, FSC-0.143 at 8.00 Å")
    assert (read_volume("run_it003_half1_class001_external_reconstruct.mrc", SHAPE) == 20).all()
    assert given["weight"] is None
    assert given["settings"] == {"combine": "trailing", "coarsest": 15.0}
    assert sorted(path.suffix for path in tmp_path.glob("run*")) == [".mrc", ".star"]
    assert list(tmp_path.glob(".crefjax*")) == []


def test_the_joined_map_stays_and_the_denoised_one_is_beside(run):
    run("run_it016_class001", np.linspace(1, 0, 17))
    own = read_volume("run_it016_class001_external_reconstruct.mrc", SHAPE)
    np.testing.assert_array_equal(own, np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    assert (read_volume("run_it016_class001_external_reconstruct_denoised.mrc", SHAPE) == 20).all()


def test_a_prior_has_the_weights_of_this_half(run):
    weight = np.random.default_rng(1).uniform(size=(64, 64, 33)).astype(np.float32)
    write_mrc("run_it003_half2_class001_external_reconstruct_weight.mrc", weight)
    _, given = run("run_it003_half2_class001", np.linspace(1, 0, 17), "prior")
    np.testing.assert_array_equal(given["weight"], weight[::2, ::2, ::2])


def test_in_the_first_iterations_the_classical_map_stays_and_no_other_is_made(run, tmp_path):
    (tmp_path / "program").unlink()
    line, _ = run("run_it001_half1_class001", np.where(np.arange(17) < 3, 1.0, 0.0), real=True)
    assert line.startswith("classical: the resolution is unknown")
    own = read_volume("run_it001_half1_class001_external_reconstruct.mrc", SHAPE)
    np.testing.assert_array_equal(own, np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
