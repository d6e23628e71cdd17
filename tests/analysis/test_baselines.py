"""Baselines: files that are written, outputs that are kept, and messages."""

import shutil

import mrcfile
import numpy as np
import pytest
from helpers.baseline_entries import SIDE, VOXEL, about, ball, halves_of, make_entry, read, write

import crefjax
from analysis.baselines import baselines
from crefjax.io.entries import find_entry

PLAIN = ["full", "wiener", "lowpass", "gaussian", "nonlocal_means"]


@pytest.fixture
def entry(tmp_path):
    return make_entry(tmp_path / "entry")


@pytest.fixture(scope="module")
def filtered_folder(tmp_path_factory):
    """Make baselines of two entries, one without a mask, and of a folder that is not an entry."""
    here = tmp_path_factory.mktemp("made")
    make_entry(here / "a")
    make_entry(here / "b", seed=1, mask=False)
    (here / "bad").mkdir()
    assert baselines.STUDY.main([str(here / name) for name in ("a", "bad", "b")]) == 0
    return here


@pytest.mark.parametrize("name", ["a", "b"])
def test_every_plain_filter_is_written(filtered_folder, name):
    found = find_entry(filtered_folder / name).outputs
    assert list(found) == sorted(PLAIN)
    for method, output in found.items():
        assert {path.name for path in (filtered_folder / name / "outputs" / method).iterdir()} == (
            {"full.mrc", "about.json"} | ({"half_map_1.mrc", "half_map_2.mrc"} if method != "full" else set())
        )
        for path in (output.full, output.half_map_1, output.half_map_2):
            if path is None:
                continue
            with mrcfile.open(path) as mrc, mrcfile.open(filtered_folder / name / "half_map_1.mrc") as source:
                assert mrc.header.origin == source.header.origin
                assert mrc.voxel_size == source.voxel_size
                assert int(mrc.header.nlabl) == int(source.header.nlabl) + 1
            assert mrcfile.validate(path)


@pytest.mark.parametrize("name", ["a", "b"])
def test_filters_reduce_the_error_of_a_noisy_ball(filtered_folder, name):
    apart, truth = ball()
    inside = apart < 9
    first, second = halves_of(filtered_folder / name)
    full = read(filtered_folder / name, "full")
    np.testing.assert_allclose(full, (first + second) / 2, atol=1e-6)
    for method in PLAIN[1:]:
        for output, source in (("full", full), ("half_map_1", first), ("half_map_2", second)):
            error = np.mean((read(filtered_folder / name, method, output) - truth)[inside] ** 2)
            assert error < 0.4 * np.mean((source - truth)[inside] ** 2), (method, output)


def test_wiener_filter_matches_numpy(filtered_folder):
    mask = mrcfile.read(filtered_folder / "a" / "mask.mrc").astype("f8")
    halves = [half_map.astype("f8") for half_map in halves_of(filtered_folder / "a")]
    k = np.fft.fftfreq(SIDE, 1 / SIDE)
    shells = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int)
    f1, f2 = (
        np.fft.fftn((half_map - np.average(half_map, weights=1 - mask)) * mask) for half_map in halves
    )  # less the solvent
    terms = (f1 * f2.conj()).real, np.abs(f1) ** 2, np.abs(f2) ** 2
    cross, p1, p2 = (np.bincount(shells.ravel(), term.ravel())[: SIDE // 2 + 1] for term in terms)
    fsc = np.clip(cross / np.sqrt(p1 * p2), 0, 1)
    fsc[np.flatnonzero(fsc[1:] < 0.143)[0] + 1 :] = 0
    for name, map_, factors in (("full", sum(halves) / 2, 2 * fsc / (1 + fsc)), ("half_map_2", halves[1], fsc)):
        factors[0] = 1
        of_voxel = np.append(factors, 0)[np.minimum(shells, len(factors))]
        expected = np.fft.ifftn(np.fft.fftn(map_) * of_voxel).real
        np.testing.assert_allclose(read(filtered_folder / "a", "wiener", name), expected, atol=1e-4)


def test_about_file_records_settings_and_versions(filtered_folder):
    record = about(filtered_folder / "a", "wiener")
    assert (record["method"], record["settings"], record["measured_in"]) == ("wiener", {"fsc_cut": 0.143}, "mask.mrc")
    assert record["crefjax"] == crefjax.__version__
    assert record["numpy"] == np.__version__
    assert 2 * VOXEL < record["fsc_0.143"] < SIDE * VOXEL
    assert record["seconds"] >= 0
    assert about(filtered_folder / "b", "lowpass")["measured_in"] == "mask made from the half-maps"
    assert "fsc_0.143" not in about(filtered_folder / "a", "full") | about(filtered_folder / "a", "nonlocal_means")
    means = about(filtered_folder / "a", "nonlocal_means")
    assert means["settings"] == {"patch": 5, "distance": 3, "strength": 0.6}
    assert means["noise"] == pytest.approx(0.4 / np.sqrt(2), rel=0.05)
    assert means["scikit-image"]


def states(entry):
    files = (path for path in (entry / "outputs").rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_second_run_makes_only_missing_outputs(filtered_folder, capsys):
    """Existing outputs stay unchanged; only missing ones are made."""
    before = states(filtered_folder / "a")
    shutil.rmtree(filtered_folder / "a" / "outputs" / "lowpass")
    assert baselines.STUDY.main([str(filtered_folder / name) for name in ("a", "b")]) == 0
    out, err = capsys.readouterr()
    assert out == "outputs: 1 made, 9 were there, 0 could not be made\n"
    assert err == ""
    after = states(filtered_folder / "a")
    assert set(after) == set(before)
    assert {path.parent.name for path in after if after[path] != before[path]} == {"lowpass"}


def test_foreign_outputs_are_kept_and_reported(entry, capsys):
    """Outputs of other settings, and those of another program."""
    foreign = entry / "outputs" / "lowpass"
    foreign.mkdir(parents=True)
    write(foreign / "full.mrc", ball()[1])
    command = [str(entry), "--method", "gaussian", "lowpass"]
    assert baselines.STUDY.main(command) == 0
    assert f"{foreign}: exists with different settings" in capsys.readouterr().err
    before = states(entry)
    assert baselines.STUDY.main([*command, "--sigma", "3"]) == 0
    err = capsys.readouterr().err
    assert [line.split(": ")[1] for line in err.splitlines()] == [str(entry / "outputs" / "gaussian"), str(foreign)]
    assert states(entry) == before
    assert baselines.STUDY.main([*command, "--sigma", "3", "--overwrite"]) == 0
    assert about(entry, "gaussian")["sigma_used"] == 3
    assert find_entry(entry).outputs["lowpass"].half_map_1 is not None
    assert {path.name for path in (entry / "outputs").iterdir()} == {"gaussian", "lowpass"}


def test_lafter_like_under_another_name_has_no_half_maps(entry):
    assert baselines.STUDY.main([str(entry), "--method", "lafter_like", "--name", "mine"]) == 0
    output = find_entry(entry).outputs["mine"]
    assert (output.half_map_1, output.half_map_2) == (None, None)
    found, outside = read(entry, "mine"), mrcfile.read(entry / "mask.mrc") == 0
    assert np.corrcoef(found[~outside], ball()[1][~outside])[0, 1] > 0.8
    assert np.all(found[outside] == 0)


@pytest.mark.slow
def test_crefjax_output_matches_denoise(entry, small_weights, capsys):
    command = [str(entry), "--method", "crefjax", "--weights", str(small_weights)]
    assert baselines.STUDY.main(command) == 0
    halves = [entry / f"half_map_{number}.mrc" for number in (1, 2)]
    expected = crefjax.denoise(*halves, weights=small_weights).array
    np.testing.assert_allclose(read(entry, "crefjax"), expected, atol=1e-6 * np.abs(expected).max())
    record = about(entry, "crefjax")
    assert record["settings"]["weights"] == "small"
    assert record["program_or_weights"] == str(small_weights)
    masked = [*command, "--mask", "--scale", "input"]
    assert baselines.STUDY.main(masked) == 0
    assert "different settings" in capsys.readouterr().err
    assert baselines.STUDY.main([*masked, "--name", "masked"]) == 0
    expected = crefjax.denoise(*halves, entry / "mask.mrc", small_weights, scale="input").array
    np.testing.assert_allclose(read(entry, "masked"), expected, atol=1e-6 * np.abs(expected).max())
    assert find_entry(entry).outputs["masked"].half_map_2 is not None


def test_each_invalid_entry_is_one_line(filtered_folder, tmp_path, capsys):
    entries = {name: make_entry(tmp_path / name, seed=2) for name in ("nan", "noise", "blocked", "good")}
    array = halves_of(entries["nan"])[0]
    array[3, 4, 5] = np.nan
    with mrcfile.open(entries["nan"] / "half_map_1.mrc", "r+") as mrc:
        mrc.data[...] = array
    random = np.random.default_rng(0)
    for number in (1, 2):
        with mrcfile.open(entries["noise"] / f"half_map_{number}.mrc", "r+") as mrc:
            mrc.data[...] = random.standard_normal(array.shape)
    (entries["blocked"] / "outputs").write_text("no folder", encoding="utf-8")
    command = [*(str(entry) for entry in entries.values()), str(tmp_path / "missing"), "--method", "wiener", "lowpass"]
    assert baselines.STUDY.main(command) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert [line.partition("left out ")[2].partition(":")[0] for line in lines[1:3]] == [
        "wiener, lowpass of nan",
        "wiener of noise",
    ]
    assert "missing" in lines[0]
    assert "NaN" in lines[1]
    assert "too little in common" in lines[2]
    assert len(lines) == 4
    assert f"{entries['blocked'] / 'outputs'}: expected a folder to write to" in lines[3]
    assert out.startswith("outputs: 3 made, 0 were there, 7")
    assert not (entries["nan"] / "outputs").exists()
    assert baselines.STUDY.main([str(entries["nan"]), str(filtered_folder / "bad")]) == 2


def test_an_entry_without_write_permission_is_one_line(entry, monkeypatch, capsys):
    monkeypatch.setattr(baselines.os, "access", lambda *_: False)  # root may write anywhere
    assert baselines.STUDY.main([str(entry)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{entry}: expected a folder to write to" in line


def test_a_failed_output_leaves_nothing_behind(entry, monkeypatch, capsys):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(baselines.json, "dumps", full_disk)  # the maps are written by then
    assert baselines.STUDY.main([str(entry), "--method", "full"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not (entry / "outputs").exists()


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--name", "a/b", "--method", "full"], "--name: expected the name of a folder"),
        (["--name", "full map", "--method", "full"], "--name: expected the name of a folder"),
        (["--name", "x"], "expected one --method"),
        (["--sigma", "3", "--method", "wiener"], "--sigma: expected with one of --method gaussian"),
        (["--sigma", "-3"], "above 0"),
        (["--method", "crefjax"], "expected --weights"),
        (["--weights", "w"], "--weights: expected with"),
        (["--method", "crefjax", "--weights", "none-such"], "none-such"),
        (["--method", "lafter", "topaz", "--program", "p"], "--program: expected with one of"),
        (["--method", "lafter", "--program", "./none-such"], "expected a program that can be run"),
        (["--method", "lafter", "--program", __file__], "expected a program that can be run"),
        (["--jobs", "0"], "--jobs"),
    ],
)
def test_mistakes_are_one_line_before_any_work(entry, argv, part, capsys):
    assert baselines.STUDY.main([str(entry), *argv]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert part in error
    assert not (entry / "outputs").exists()


def test_other_outputs_are_made_without_scikit_image(entry, monkeypatch, capsys):
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    assert baselines.STUDY.main([str(entry)]) == 0
    assert "pip install" in capsys.readouterr().err
    assert sorted(find_entry(entry).outputs) == sorted(PLAIN[:-1])
