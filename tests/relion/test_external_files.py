"""Files as RELION 3.1, 4, and 5 write them are read; another half's are not."""

import mrcfile
import numpy as np
import pytest
from helpers.relion_files import RELION_5, write_job, write_model, write_mrc, write_optimiser

from crefjax.errors import UserError
from crefjax.relion.external import read_job, read_result_path, read_volume, write_volume

FSC = np.linspace(1, 0, 17)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    return tmp_path


def test_a_file_of_relion_3_takes_voxel_size_and_diameter_from_the_files_of_its_half(project):
    star = write_job(project, "out/run_it003_half2_class001", FSC, box=32, current=28, tau2=np.arange(17.0))
    write_model(project, "out/run_it000_half1", 99.0)
    write_model(project, "out/run_it000_half2", 3.5)
    write_optimiser(project, "out/run_it000", 90.0)
    job = read_job(star)
    assert (job.half, job.voxel_size, job.particle_diameter) == (2, 3.5, 90.0)
    assert (job.box, job.current, job.padding, job.fudge) == (32, 28, 2.0, 1.0)
    assert str(job.result) == "out/run_it003_half2_class001_external_reconstruct.mrc"
    assert job.beside("_denoised.mrc").name == "run_it003_half2_class001_external_reconstruct_denoised.mrc"
    np.testing.assert_allclose(job.fsc, FSC, atol=1e-6)
    np.testing.assert_allclose(job.tau2, np.arange(17.0))


def test_the_voxel_size_is_never_taken_from_the_other_half(project):
    star = write_job(project, "out/run_it003_half2_class001", FSC, box=32, current=28)
    write_model(project, "out/run_it000_half1", 99.0)
    with pytest.raises(UserError, match="expected rlnPixelSize here or in a model file"):
        read_job(star)


def test_a_file_of_relion_5_is_complete(project):
    more = RELION_5.format(voxel_size=1.25, diameter=180)
    job = read_job(write_job(project, "out/run_it012_half1_class001", FSC, box=32, current=32, more=more))
    assert (job.half, job.voxel_size, job.particle_diameter) == (1, 1.25, 180.0)


@pytest.mark.parametrize(
    ("root", "half"),
    [
        ("run_it016_class001", None),
        ("run_it016_half1_class001_body002", 1),
        ("run_ct10_it011_half2_class001", 2),
        ("Class3D/job004/run_it025_class003", None),
    ],
)
def test_the_half_is_read_from_the_name(project, root, half):
    more = RELION_5.format(voxel_size=2, diameter=100)
    assert read_job(write_job(project, root, FSC, box=32, current=28, more=more)).half == half


def test_after_continue_the_files_of_an_earlier_run_are_found(project):
    star = write_job(project, "out/run_ct10_it011_half1_class001", FSC, box=32, current=28)
    write_model(project, "out/run_it000_half1", 3.5)
    job = read_job(star)
    assert (job.voxel_size, job.particle_diameter) == (3.5, None)


def test_relions_name_for_the_whole_box_is_no_diameter(project):
    more = RELION_5.format(voxel_size=1.25, diameter=-1)
    job = read_job(write_job(project, "out/run_it012_half1_class001", FSC, box=32, current=32, more=more))
    assert job.particle_diameter is None


def test_brackets_in_a_name_are_no_pattern(project):
    star = write_job(project, "out/run[1]_it003_half1_class001", FSC, box=32, current=28)
    write_model(project, "out/run[1]_it003_half1", 3.5)
    write_model(project, "out/run1_it000_half1", 99.0)
    assert read_job(star).voxel_size == 3.5


def test_shells_that_the_file_lacks_are_0(project):
    more = RELION_5.format(voxel_size=2, diameter=100)
    star = write_job(project, "out/run_it016_class001", FSC, box=32, current=28, more=more)
    lines = [line for line in star.read_text().splitlines() if not line.startswith("          16 ")]
    star.write_text("\n".join(lines))
    assert read_job(star).fsc[16] == 0
    assert read_job(star).fsc[15] == pytest.approx(1 / 16)


def test_other_star_files_and_planes_are_refused(project):
    (project / "a.star").write_text("data_optics\n_rlnVoltage 300\n")
    with pytest.raises(UserError, match="expected a block data_external_reconstruct_general, found data_optics"):
        read_result_path(project / "a.star")
    star = write_job(project, "out/run_it016_class001", FSC, box=32, current=28)
    star.write_text(star.read_text().replace("Dimensionality                       3", "Dimensionality  2"))
    with pytest.raises(UserError, match="expected a reference of 3 dimensions, found 2"):
        read_job(star)


def test_arrays_without_a_voxel_size_are_read(project):
    array = np.random.default_rng(0).normal(size=(8, 8, 5)).astype(np.float32)
    write_mrc(project / "a.mrc", array)
    np.testing.assert_array_equal(read_volume("a.mrc", (8, 8, 5)), array)
    with pytest.raises(UserError, match=r"of shape \(8, 8, 8\), found \(8, 8, 5\)"):
        read_volume("a.mrc", (8, 8, 8))
    with pytest.raises(UserError, match="No such file"):
        read_volume("b.mrc", (8, 8, 8))
    with mrcfile.mmap(project / "a.mrc", mode="r+") as file:
        file.data[0, 0, 0] = np.nan
    with pytest.raises(UserError, match="finite"):
        read_volume("a.mrc", (8, 8, 5))


def test_a_written_map_is_a_valid_map(project):
    array = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    write_volume("a.mrc", array, 1.5)
    assert mrcfile.validate("a.mrc")
    with mrcfile.open("a.mrc") as file:
        np.testing.assert_array_equal(file.data, array)
        assert file.voxel_size.z == 1.5
        assert not file.is_image_stack()
    with pytest.raises(UserError, match="finite"):
        write_volume("b.mrc", array * np.inf, 1.5)
    assert not (project / "b.mrc").exists()
