"""The command within a refinement: what it runs, and that nothing that goes wrong reaches RELION."""

import sys

import numpy as np
import pytest
from helpers.relion_files import RELION_5, write_job, write_mrc

from crefjax.cli.main import main
from crefjax.errors import UserError
from crefjax.relion.external import external_reconstruct, read_result_path, read_volume, run_classical

FSC = np.linspace(1, 0, 17)
ROOT = "out/run_it003_half1_class001"
# Stands in for RELION's program: it writes a map of ones, or of twos without prior, where it is told to.
PROGRAM = """#!{python}
import sys, numpy, mrcfile
output = sys.argv[sys.argv.index("--o") + 1]
assert sys.argv[1].endswith(".star")
with mrcfile.new(output, overwrite=True) as file:
    file.set_data(numpy.full((32, 32, 32), 1 + ("--no_map" in sys.argv), "f4"))
"""


@pytest.fixture
def star(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "program"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    more = RELION_5.format(voxel_size=2, diameter=50)
    return write_job(tmp_path, ROOT, FSC, box=32, current=28, more=more)


def result():
    return read_volume(f"{ROOT}_external_reconstruct.mrc", (32, 32, 32))


def log():
    with open(f"{ROOT}_external_reconstruct.log", encoding="utf-8") as file:
        return file.read()


def test_the_classical_step_alone_is_relions_own_result(star):
    assert main(["external-reconstruct", str(star), "--combine", "none", "--classical", "./program"]) == 0
    assert (result() == 1).all()


def test_the_map_without_prior_is_written_elsewhere(star):
    run_classical(read_result_path(star), program="./program", output=star.with_name("u.mrc"), without_prior=True)
    assert (read_volume(star.with_name("u.mrc"), (32, 32, 32)) == 2).all()
    assert not (star.parent / "run_it003_half1_class001_external_reconstruct.mrc").exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; print('no such weights', file=sys.stderr); sys.exit(2)", ["status 2", "no such weights"]),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", ["status -9"]),
        ("raise MemoryError('out of it')", ["status 1", "MemoryError: out of it"]),
    ],
)
def test_the_classical_map_stays_when_the_denoiser_fails(star, code, words):
    line = external_reconstruct(star, [sys.executable, "-c", code], program="./program")
    assert (result() == 1).all()
    assert "kept the classical reconstruction" in line
    assert log() == line + "\n"
    assert all(word in line for word in words)


def test_the_classical_map_stays_when_the_denoiser_cannot_be_started(star):
    assert "could not be run" in external_reconstruct(star, ["/no/such/program"], program="./program")
    assert (result() == 1).all()


def test_the_log_has_the_result_and_no_warning_of_a_library(star):
    code = "import sys; print('first'); print('blend: all is well'); print('a warning', file=sys.stderr)"
    assert external_reconstruct(star, [sys.executable, "-c", code], program="./program") == "blend: all is well"
    assert log() == "blend: all is well\n"


def test_denoising_without_a_way_to_combine_is_refused(star, capsys):
    assert main(["external-reconstruct", str(star), "--combine", "none", "--after-classical"]) == 2
    assert "--combine none" in capsys.readouterr().err


@pytest.mark.slow
def test_a_refinement_goes_on_with_the_classical_map_when_the_half_map_cannot_be_denoised(star, capfd):
    # A map of ones: there is nothing to denoise.
    assert main(["external-reconstruct", str(star), "--classical", "./program", "--device", "cpu"]) == 0
    assert (result() == 1).all()
    assert "kept the classical reconstruction" in log()
    assert "kept the classical reconstruction" in capfd.readouterr().err


def test_without_a_classical_map_there_is_nothing_to_go_on_with(star, capsys):
    assert main(["external-reconstruct", str(star), "--classical", "./missing"]) == 2
    assert "found none on the path; install RELION" in capsys.readouterr().err
    (star.parents[1] / "program").write_text("#!/bin/sh\necho 'no disk' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"failed \(no disk\)"):
        external_reconstruct(star, None, program="./program")


def test_an_older_result_is_not_taken_for_this_one(star):
    write_mrc(f"{ROOT}_external_reconstruct.mrc", np.zeros((32, 32, 32)))
    (star.parents[1] / "program").write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(UserError, match="failed"):
        external_reconstruct(star, None, program="./program")


def test_the_program_is_not_taken_for_a_rank_of_the_run_that_started_it(star, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("PMIX_RANK", "1")
    (star.parents[1] / "program").write_text('#!/bin/sh\n[ -z "$OMPI_COMM_WORLD_RANK$PMIX_RANK" ] && : > "$3"\n')
    run_classical(read_result_path(star), program="./program")
    assert (star.parent / "run_it003_half1_class001_external_reconstruct.mrc").exists()
