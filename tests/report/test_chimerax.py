import re

import numpy as np
import pytest
from helpers.report_inputs import VOXEL, body, example_numbers, local, report_inputs, soft_mask, sources

from crefjax.io.maps import read_map
from crefjax.report.writer import level_of_volume, matched_levels, write_report


def above(array, level):
    """Voxels above a level, counted one by one."""
    return sum(1 for value in array.ravel().tolist() if value > level)


def test_levels_enclose_the_same_number_of_voxels():
    full, denoised = (body(1) + body(2)) / 2, 0.5 * body()
    levels = matched_levels(full, denoised, soft_mask())
    assert above(full, levels.full) == above(denoised, levels.denoised) == levels.voxels
    assert 0 < levels.voxels < full.size


@pytest.mark.parametrize("voxels", [0, 1, 7, 59, 60])
def test_level_of_a_volume(voxels):
    array = np.random.default_rng(3).permutation(60).astype(np.float32).reshape(3, 4, 5)
    assert above(array, level_of_volume(array, voxels)) == voxels


def test_constant_maps_have_levels():
    constant = np.full((4, 5, 6), 2.5, np.float32)
    assert above(body(1), matched_levels(body(1), np.zeros_like(body()), soft_mask()).full) == 0
    assert above(constant, matched_levels(constant, constant, np.ones_like(constant)).denoised) == 0


def words(folder, command):
    """The lines of view.cxc that begin with a command."""
    text = (folder / "view.cxc").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.split(" ")[0] == command]


def opened(folder):
    return [re.fullmatch(r'open "([^"]+)"', line)[1] for line in words(folder, "open")]


def test_script_opens_maps_at_levels_of_one_volume(tmp_path):
    inputs = report_inputs(tmp_path, "my denoised.mrc")
    out = tmp_path / "a report"
    write_report(inputs, example_numbers(), out, sources=sources(inputs), local=local())
    paths = opened(out)
    assert paths[1] == "../my denoised.mrc"
    assert ";" not in (out / "view.cxc").read_text(encoding="utf-8")
    full, denoised, agreement, change = (read_map(out / path) for path in paths)
    assert np.allclose(full.array, (body(1) + body(2)) / 2, atol=1e-6)
    assert (full.voxel_size, full.origin) == (VOXEL, (3.0, 0.0, -4.5))
    levels = [float(re.search(r" level (\S+)", line)[1]) for line in words(out, "volume")[:2]]
    assert above(full.array, levels[0]) == above(denoised.array, levels[1]) > 0
    assert np.array_equal(agreement.array, local().agreement)
    assert np.array_equal(change.array, local().change)
    assert re.fullmatch(r"color sample #2 map #3 palette 0,#\w+:.*:1,#\w+ key true", words(out, "color")[0])


def test_local_maps_written_elsewhere_are_not_copied(tmp_path):
    inputs = report_inputs(tmp_path)
    places = (tmp_path / "x_local_agreement.mrc", tmp_path / "x_local_change.mrc")
    out = tmp_path / "out"
    write_report(inputs, example_numbers(), out, sources=sources(inputs), local=local(), local_paths=places)
    assert opened(out)[2:] == ["../x_local_agreement.mrc", "../x_local_change.mrc"]
    assert not list(out.glob("local*.mrc"))


@pytest.mark.parametrize("name", ["packed.mrc.gz", 'quo"te.mrc', "two\nlines.mrc"])
def test_a_map_that_chimerax_cannot_open_is_copied(name, tmp_path):
    inputs = report_inputs(tmp_path, name)
    write_report(inputs, example_numbers(), tmp_path / "out", sources=sources(inputs))
    assert opened(tmp_path / "out") == ["full_map.mrc", "denoised_map.mrc"]
    assert np.array_equal(read_map(tmp_path / "out" / "denoised_map.mrc").array, inputs.denoised.array)
    assert not words(tmp_path / "out", "color")
