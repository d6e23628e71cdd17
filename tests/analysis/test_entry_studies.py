"""Studies over entries: numbers against NumPy, invalid entries, resumed runs, several jobs, and the benchmark."""

import csv
import json
import re
import shutil

import mrcfile
import numpy as np
import pytest

from analysis.framework import entry_study
from analysis.metrics import benchmark, cref_rmse, half_map_fsc, reference_fsc, snr_and_bias
from analysis.weights import convergence

SIDE, VOXEL = 24, 2.0
METHODS = ("full map", "blurred", "halved")


def ball():
    apart = np.linalg.norm(np.indices((SIDE,) * 3) - np.array([11, 13, 12])[:, None, None, None], axis=0)
    coarse = 0.5 * (1 + np.cos(np.pi * np.clip((apart - 4) / 3, 0, 1)))
    return coarse + 0.3 * coarse * np.cos(np.indices((SIDE,) * 3).sum(axis=0))


def mask():
    apart = np.linalg.norm(np.indices((SIDE,) * 3) - 12, axis=0)
    return 0.5 * (1 + np.cos(np.pi * np.clip((apart - 8) / 3, 0, 1)))


def write(path, array, voxel=VOXEL):
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(array.astype("f4"))
        mrc.voxel_size = voxel


def blurred(array):
    k2 = sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(SIDE) * SIDE] * 3, indexing="ij"))
    return np.fft.ifftn(np.fft.fftn(array) * np.exp(-k2 / 50)).real


def make_entry(folder, seed, *, truth=True):
    random, signal = np.random.default_rng(seed), ball()
    halves = [signal + 0.4 * random.standard_normal(signal.shape) + 0.1 for _ in range(2)]
    for number, half in enumerate(halves, 1):
        write(folder / f"half_map_{number}.mrc", half)
        write(folder / f"outputs/blurred/half_map_{number}.mrc", blurred(half))
    full = (halves[0] + halves[1]) / 2
    write(folder / "outputs/blurred/full.mrc", blurred(full))
    write(folder / "outputs/halved/full.mrc", 0.5 * full)
    write(folder / "mask.mrc", mask())
    if truth:
        write(folder / "truth.mrc", signal)
    return folder


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    here = tmp_path_factory.mktemp("entries")
    return [make_entry(here / name, seed, truth=name != "c") for seed, name in enumerate("abc")]


@pytest.fixture(scope="module")
def all_of(entries, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "all"
    folder.mkdir()
    assert benchmark.STUDY.main([*(str(entry) for entry in entries), "-o", str(folder), "--jobs", "2"]) == 0
    return folder


def rows(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def slow_fsc(first, second, inside):
    """Return the FSC of maps relative to their mean outside the mask; shells at the nearest integer radius."""
    spectra = []
    for half_map in (first, second):
        level = (half_map * (1 - inside)).sum() / (1 - inside).sum() if inside is not None else 0
        spectra.append(np.fft.fftn((half_map - level) * (1 if inside is None else inside)))
    index = np.floor(np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(SIDE) * SIDE] * 3, indexing="ij"))) + 0.5)
    index = index.astype(int).ravel()

    def total(values):
        return np.bincount(index, values.ravel())[: SIDE // 2 + 1]

    cross = total((spectra[0] * spectra[1].conj()).real)
    return cross / np.sqrt(total(abs(spectra[0]) ** 2) * total(abs(spectra[1]) ** 2))


def maps_of(entry, method):
    halves = [mrcfile.read(entry / f"half_map_{n}.mrc").astype("f8") for n in (1, 2)]
    full = (halves[0] + halves[1]) / 2
    return halves, full if method == "full map" else mrcfile.read(entry / f"outputs/{method}/full.mrc").astype("f8")


def test_rmse_to_cref_matches_numpy(entries, all_of):
    found = {(row["entry"], row["method"]): float(row["cref_rmse"]) for row in rows(all_of / "cref_rmse.csv")}
    assert set(found) == {(entry.name, method) for entry in entries for method in METHODS}
    for (name, method), value in found.items():
        (first, second), denoised = maps_of(entries["abc".index(name)], method)
        half = slow_fsc(first, second, mask())
        cref2 = np.where(half > 0, 2 * half / (1 + half), 0)
        fsc = slow_fsc(denoised, (first + second) / 2, mask())
        expected = np.sqrt(np.mean((fsc * abs(fsc) - cref2)[1:-1] ** 2))
        assert value == pytest.approx(expected, abs=2e-5)


def test_rmse_to_cref_in_the_whole_box_matches_numpy(entries, all_of):
    for row in rows(all_of / "cref_rmse.csv"):
        (first, second), denoised = maps_of(entries["abc".index(row["entry"])], row["method"])
        half = slow_fsc(first, second, None)
        fsc = slow_fsc(denoised, (first + second) / 2, None)
        expected = np.sqrt(np.mean((fsc * abs(fsc) - np.where(half > 0, 2 * half / (1 + half), 0))[1:-1] ** 2))
        assert float(row["cref_rmse_box"]) == pytest.approx(expected, abs=2e-5)


def test_fsc_to_the_truth_matches_numpy(entries, all_of):
    found = rows(all_of / "reference_fsc.csv")
    assert {row["entry"] for row in found} == {"a", "b"}
    for row in found:
        _, denoised = maps_of(entries["ab".index(row["entry"])], row["method"])
        fsc = slow_fsc(denoised, mrcfile.read(entries[0] / "truth.mrc").astype("f8"), mask())
        assert float(row["mean_fsc"]) == pytest.approx(fsc[1:-1].mean(), abs=2e-5)
        (first, second), _ = maps_of(entries["ab".index(row["entry"])], row["method"])
        full = slow_fsc((first + second) / 2, mrcfile.read(entries[0] / "truth.mrc").astype("f8"), mask())
        assert float(row["least_gain"]) == pytest.approx((fsc - full)[1:-1].min(), abs=2e-5)


def test_scaling_changes_no_score(all_of):
    """The method `halved` is the full map times a half."""
    found = {(row["entry"], row["method"]): row for row in rows(all_of / "benchmark.csv")}
    for name in "ab":
        for key in ("mean_fsc", "fsc_0.5", "cref_rmse"):
            assert float(found[name, "halved"][key]) == pytest.approx(float(found[name, "full map"][key]), rel=1e-4)


def test_half_maps_gain_is_between_noisy_and_denoised(entries, all_of):
    """Only `blurred` has denoised half-maps; a linear filter changes no FSC with the other half-map's noisy shells."""
    found = rows(all_of / "half_map_fsc.csv")
    assert {row["method"] for row in found} == {"blurred"}
    for row in found:
        (first, second), _ = maps_of(entries["abc".index(row["entry"])], "blurred")
        before = slow_fsc(first, second, mask())
        at = np.flatnonzero(before < 0.5)[0]
        crossing = at - 1 + (before[at - 1] - 0.5) / (before[at - 1] - before[at])
        assert float(row["half_maps_masked"]) == pytest.approx(SIDE * VOXEL / crossing, rel=0.03)
        blurs = [mrcfile.read(entries["abc".index(row["entry"])] / f"outputs/blurred/half_map_{n}.mrc") for n in (1, 2)]
        kept = json.loads((all_of / "measured" / f"{row['entry']}--half_map_fsc.json").read_text(encoding="utf-8"))
        after = kept["rows"][0]["curves"]["after_masked"]
        expected = (slow_fsc(first, blurs[1], mask()) + slow_fsc(second, blurs[0], mask())) / 2
        np.testing.assert_allclose(after, expected, atol=2e-5)


def test_error_against_the_truth_matches_numpy(entries, all_of):
    found = rows(all_of / "truth_error.csv")
    assert [(row["entry"], row["method"]) for row in found] == [(e, m) for e in "ab" for m in METHODS]
    truth, window = ball(), mask()
    for row in found:
        maps = {"full map": lambda map_: map_, "blurred": blurred, "halved": lambda map_: 0.5 * map_}
        (first, second), _ = maps_of(entries["ab".index(row["entry"])], "blurred")
        map_ = maps[row["method"]]((first + second) / 2).astype(np.float64)
        level, of_truth = (each[window == 0].mean() for each in (map_, truth))
        expected = np.sum((window * (map_ - level - truth + of_truth)) ** 2) / np.sum(
            (window * (truth - of_truth)) ** 2
        )
        assert float(row["error"]) == pytest.approx(expected, rel=0.02)


def test_a_filter_does_not_change_the_signal_to_noise_ratio(all_of):
    for row in rows(all_of / "snr_and_bias.csv"):
        assert row["method"] == "blurred"
        assert float(row["snr_gain"]) == pytest.approx(1, abs=0.15)


def test_benchmark_writes_tables_page_and_figures(entries, all_of):
    page = (all_of / "benchmark.html").read_text(encoding="utf-8")
    assert "3 entries" in page
    assert not re.search(r'(?:src|href)=(?!"data:)', page)
    assert page.count("data:image/png") == 6
    text = (all_of / "benchmark.md").read_text(encoding="utf-8")
    assert all(f"| {method} |" in text for method in METHODS)
    joined = rows(all_of / "benchmark.csv")
    assert [(row["entry"], row["method"]) for row in joined] == [(e, m) for e in "abc" for m in METHODS]
    report = json.loads((all_of / "benchmark.json").read_text(encoding="utf-8"))
    assert {"entry": "c", "study": "reference_fsc", "why": "it has no truth.mrc or reference.mrc"} in report["left_out"]
    median = np.median([float(row["cref_rmse"]) for row in joined if row["method"] == "blurred"])
    assert report["summary"]["cref_rmse"]["methods"]["blurred"]["median"] == pytest.approx(median, rel=1e-4)
    for name in ("benchmark", "cref_rmse", "reference_fsc", "half_map_fsc", "snr_and_bias"):
        assert (all_of / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (all_of / f"{name}.svg").read_text(encoding="utf-8")


def test_a_study_run_alone_writes_the_same_table(entries, all_of, tmp_path, capsys):
    assert cref_rmse.STUDY.main([*(str(entry) for entry in entries), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/cref_rmse.csv").read_bytes() == (all_of / "cref_rmse.csv").read_bytes()
    assert "n = 3" in capsys.readouterr().out


def test_an_entry_without_outputs_has_a_row_of_the_full_map(entries, tmp_path):
    bare = shutil.copytree(entries[0], tmp_path / "bare", ignore=shutil.ignore_patterns("outputs"))
    assert cref_rmse.STUDY.main([str(bare), str(entries[1]), "-o", str(tmp_path / "out")]) == 0
    found = [(row["entry"], row["method"]) for row in rows(tmp_path / "out/cref_rmse.csv")]
    assert found[0] == ("bare", "full map")
    assert {method for entry, method in found[1:] if entry == "b"} == {"full map", "blurred", "halved"}
    assert (tmp_path / "out/cref_rmse.png").read_bytes().startswith(b"\x89PNG")


def test_an_invalid_entry_is_reported_and_skipped(entries, tmp_path, capsys):
    bad = shutil.copytree(entries[0], tmp_path / "bad")
    (bad / "half_map_2.mrc").write_bytes(b"no map")
    assert cref_rmse.STUDY.main([str(bad), str(entries[1]), str(tmp_path / "none"), "-o", str(tmp_path / "out")]) == 0
    output = capsys.readouterr()
    assert "left out: bad: " in output.err
    assert "half_map_2.mrc" in output.err
    assert "left out: none: " in output.err
    assert {row["entry"] for row in rows(tmp_path / "out/cref_rmse.csv")} == {"b"}
    left_out = json.loads((tmp_path / "out/cref_rmse.json").read_text(encoding="utf-8"))["left_out"]
    assert sorted(row["entry"] for row in left_out) == ["bad", "none"]


def test_unchanged_entries_are_not_measured_again(entries, tmp_path, monkeypatch):
    here = shutil.copytree(entries[0], tmp_path / "entry")
    again = [str(here), str(entries[1]), "-o", str(tmp_path / "out"), "--overwrite"]
    assert cref_rmse.STUDY.main(again) == 0
    first = rows(tmp_path / "out/cref_rmse.csv")
    measured, asked = entry_study.measure_entry, []
    monkeypatch.setattr(entry_study, "measure_entry", lambda task: (asked.append(task.path.name), measured(task))[1])
    assert cref_rmse.STUDY.main(again) == 0
    assert asked == []
    assert rows(tmp_path / "out/cref_rmse.csv") == first
    write(here / "outputs/halved/full.mrc", ball())
    assert cref_rmse.STUDY.main(again) == 0
    assert asked == ["entry"]
    assert rows(tmp_path / "out/cref_rmse.csv") != first


def test_methods_option_selects_methods(entries, tmp_path):
    out = tmp_path / "out"
    assert reference_fsc.STUDY.main([str(entries[0]), "-o", str(out), "--methods", "halved"]) == 0
    assert [row["method"] for row in rows(out / "reference_fsc.csv")] == ["full map", "halved"]


def test_mistakes_are_one_line(entries, all_of, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    entry, out = str(entries[0]), ["-o", "out"]
    for argv, words in (
        ([entry, "-o", str(all_of)], "--overwrite"),
        ([entry, entry, *out], "every entry once"),
        ([entry, *out, "--jobs", "0"], "--jobs"),
        ([entry, *out, "--methods", "blurred,lafter"], "found lafter"),
        ([entry, "-o", "no/such"], "make it first"),
        (["nothing", *out], "nothing could be measured"),
    ):
        assert cref_rmse.STUDY.main(argv) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert words in lines[-1]
        assert len(lines) <= 2
        assert not (tmp_path / "out/cref_rmse.csv").exists()
    assert reference_fsc.STUDY.main([str(entries[2]), *out]) == 2
    assert "truth.mrc" in capsys.readouterr().err


def test_studies_of_half_maps_refuse_methods_without_them(entries, tmp_path, capsys):
    assert half_map_fsc.STUDY.main([str(entries[0]), "-o", str(tmp_path / "out"), "--methods", "halved"]) == 2
    assert "nothing could be measured" in capsys.readouterr().err
    assert snr_and_bias.STUDY.main([str(entries[0]), "-o", str(tmp_path / "out"), "--methods", "halved"]) == 2


def test_convergence_of_two_runs(entries, tmp_path, capsys):
    for name, best in (("one", 0.5), ("two", 0.7)):
        lines = [{"kind": "training", "step": step, "loss": 1 / step} for step in (1, 2, 3)]
        lines += [{"kind": "evaluation", "step": 2, "loss": 0.9, "fsc_truth": best - 0.1, "cref_rmse": 0.1}]
        lines += [{"kind": "evaluation", "step": 3, "loss": 1.0, "fsc_truth": best, "cref_rmse": 0.2}]
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text, encoding="utf-8")
    argv = [str(tmp_path / "one"), str(tmp_path / "two"), "-o", str(tmp_path / "out")]
    assert convergence.STUDY.main(argv) == 0
    summary = json.loads((tmp_path / "out/convergence.json").read_text(encoding="utf-8"))["summary"]
    assert summary["two"] == {"loss": [0.9, 2], "cref_rmse": [0.1, 2], "fsc_truth": [0.7, 3]}
    assert len(rows(tmp_path / "out/convergence.csv")) == 10
    assert (tmp_path / "out/convergence.png").read_bytes().startswith(b"\x89PNG")
    all_in_one = [str(entries[0]), "-o", str(tmp_path / "all"), "--workdirs", *argv[:2]]
    assert benchmark.STUDY.main(all_in_one) == 0
    assert (tmp_path / "all/convergence.csv").read_bytes() == (tmp_path / "out/convergence.csv").read_bytes()
    assert "loss and validation over training" in (tmp_path / "all/benchmark.html").read_text(encoding="utf-8")
    assert convergence.STUDY.main(argv) == 2
    assert convergence.STUDY.main([str(tmp_path), "-o", str(tmp_path / "out2")]) == 2
    assert "metrics.jsonl" in capsys.readouterr().err


def test_convergence_by_run_draws_held_out_errors_over_the_minutes_of_the_step_before(tmp_path):
    training = [{"kind": "training", "step": step, "loss": 1 / step, "seconds": 60.0 * step} for step in (1, 2, 3)]
    evaluation = {"kind": "evaluation", "step": 2, "loss": 0.3, "noisy": 0.9, "empty": 0.4}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        lines = [*training[:2], evaluation, *training[2:]]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    argv = [str(tmp_path / "one"), str(tmp_path / "two"), "-o", str(tmp_path / "out"), "--by-run"]
    assert convergence.STUDY.main(argv) == 0
    assert (tmp_path / "out/convergence.png").read_bytes().startswith(b"\x89PNG")
    axes = convergence._panels(convergence.read_runs(argv[:2])).axes
    assert [each.get_title() for each in axes] == ["one", "two"]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes[0].get_lines()}
    assert lines["held out"] == [[2.0, 0.3]]
    assert (lines["noisy"], lines["empty"]) == ([[2.0, 0.9]], [[2.0, 0.4]])
    assert len(lines["training"]) == 3
