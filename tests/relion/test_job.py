"""An External job of RELION leaves what RELION looks for."""

import os

import numpy as np
import pytest
from helpers.relion_files import write_mrc

from crefjax.cli import relion_job
from crefjax.cli.main import main
from crefjax.cli.relion_job import finish, other_half, start
from crefjax.errors import UserError
from crefjax.io.star import read_star


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc"),
        ("run_half2_class001_unfil.mrc", "run_half1_class001_unfil.mrc"),
        ("half1_half1.mrc", "half1_half2.mrc"),
        ("emd_1_half_map_1.map", "emd_1_half_map_2.map"),
    ],
)
def test_the_other_half_map_is_found_by_its_name(tmp_path, first, second):
    with pytest.raises(UserError, match=f"{second}: expected the other half-map"):
        other_half(tmp_path / first)
    (tmp_path / second).touch()
    assert other_half(tmp_path / first) == tmp_path / second


def test_a_map_that_is_no_half_map_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected half1 or half2"):
        other_half(tmp_path / "run_class001.mrc")


def test_the_end_of_an_earlier_run_is_forgotten(tmp_path):
    folder = tmp_path / "External/job005"
    start(folder)
    finish(folder, success=False)
    start(folder)
    assert list(folder.iterdir()) == []
    finish(folder, success=True, outputs=[folder / "denoised.mrc"])
    assert sorted(path.name for path in folder.iterdir()) == ["RELION_JOB_EXIT_SUCCESS", "RELION_OUTPUT_NODES.star"]
    assert read_star(folder / "RELION_OUTPUT_NODES.star") == {
        "output_nodes": {
            "rlnPipeLineNodeName": [str(folder / "denoised.mrc")],
            "rlnPipeLineNodeType": ["6"],
            "rlnPipeLineNodeTypeLabel": ["DensityMap.mrc"],
        }
    }


def test_a_job_that_fails_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NPROC", "3")
    assert main(["relion-job", "--o", "External/job005/", "--in_3dref", "run_half1.mrc", "--j", "2"]) == 2
    assert "run_half1.mrc: expected a half-map, found no such file" in capsys.readouterr().err
    assert os.environ["NPROC"] == "2"
    assert [path.name for path in (tmp_path / "External/job005").iterdir()] == ["RELION_JOB_EXIT_FAILURE"]
    write_mrc(tmp_path / "run_half1.mrc", np.zeros((8, 8, 8)), 2.0)
    assert main(["relion-job", "--o", "External/job005/", "--in_3dref", "run_half1.mrc"]) == 2
    assert "expected the other half-map" in capsys.readouterr().err


def test_a_job_whose_outputs_relion_could_not_read_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(relion_job, "_denoise", lambda folder, arguments: [folder / "denoised.mrc"])
    folder = tmp_path / "my job"
    with pytest.raises(ValueError, match="blanks"):
        main(["relion-job", "--o", str(folder), "--in_3dref", "run_half1.mrc"])
    assert [path.name for path in folder.iterdir()] == ["RELION_JOB_EXIT_FAILURE"]


@pytest.mark.slow
def test_a_job_denoises_and_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NPROC", "2")
    random = np.random.default_rng(0)
    z = np.mgrid[:32, :32, :32] - 16
    blob = np.exp(-np.sum(z**2, axis=0) / 40.0) * (1 + np.cos(z[0]) * np.cos(z[1]))
    for half in (1, 2):
        write_mrc(tmp_path / f"run_half{half}_class001_unfil.mrc", blob + random.normal(0, 0.05, blob.shape), 2.5)
    words = ["relion-job", "--o", "External/job005/", "--in_3dref", "run_half1_class001_unfil.mrc", "--device", "cpu"]
    assert main(words) == 0
    folder = tmp_path / "External/job005"
    assert {"denoised.mrc", "denoised.json", "report", "RELION_JOB_EXIT_SUCCESS", "RELION_OUTPUT_NODES.star"} == {
        path.name for path in folder.iterdir()
    }
    assert read_star(folder / "RELION_OUTPUT_NODES.star")["output_nodes"]["rlnPipeLineNodeName"] == [
        "External/job005/denoised.mrc"
    ]
    assert main([*words, "--j", "1"]) == 0  # RELION runs a job again to continue it
