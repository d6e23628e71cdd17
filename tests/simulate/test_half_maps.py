import json
import os
from dataclasses import replace

import gemmi
import mrcfile
import numpy as np
import pytest
from reference.spectra import fsc as numpy_fsc

from crefjax.errors import UserError
from crefjax.simulate import half_maps
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.half_maps import (
    Belt,
    BulkSolvent,
    Flexible,
    SimulationConfig,
    check_entry_folder,
    simulate_half_maps,
    write_entry,
)
from crefjax.simulate.imaging import Particles
from crefjax.simulate.noise import b_factor_spectrum, power_law_spectrum
from crefjax.simulate.phantom import phantom

SETTINGS = SimulationConfig(voxel_size=2.0, resolution=6.0, box=32)


@pytest.fixture(scope="module")
def model():
    return phantom(80)


@pytest.fixture(scope="module")
def simulation(model):
    return simulate_half_maps(model, SETTINGS)


def crossing(fsc, length, threshold=0.143):
    below = int(np.flatnonzero(fsc[1:] < threshold)[0]) + 1
    share = (fsc[below - 1] - threshold) / (fsc[below - 1] - fsc[below])
    return length / (below - 1 + share)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"seed": 7, "resolution": 5.0},
        {"noise": b_factor_spectrum(60.0), "b_factor": 100.0},
        {"noise": power_law_spectrum(1.0), "unevenness": 0.3},
        {"belt": Belt(), "flexible": Flexible(fraction=0.4)},
        {"box": 33, "seed": 2},
        {"bulk_solvent": BulkSolvent(0.6, 300.0)},
    ],
)
def test_masked_fsc_crosses_at_the_requested_resolution(model, change):
    settings = replace(SETTINGS, **change)
    simulation = simulate_half_maps(model, settings)
    fsc = numpy_fsc(simulation.half_map_1 * simulation.mask, simulation.half_map_2 * simulation.mask)
    found = crossing(fsc, len(simulation.mask) * settings.voxel_size)
    np.testing.assert_allclose(found, settings.resolution, rtol=0.02)
    np.testing.assert_allclose(simulation.report["resolution_reached"], found, rtol=1e-3)
    np.testing.assert_allclose(simulation.report["fsc"], fsc, atol=1e-4)


@pytest.mark.slow
def test_reconstruction_crosses_at_the_requested_resolution(model):
    settings = replace(SETTINGS, method="reconstruction", particles=Particles(count=60), refinements=0)
    simulation = simulate_half_maps(model, settings)
    fsc = numpy_fsc(simulation.half_map_1 * simulation.mask, simulation.half_map_2 * simulation.mask)
    np.testing.assert_allclose(crossing(fsc, 64.0), 6.0, rtol=0.02)
    assert simulation.report["level"]["image_snr"] > 0
    assert simulation.report["parameters"]["particles"]["count"] == 60
    assert "noise" not in simulation.report["parameters"]
    json.dumps(simulation.report, allow_nan=False)


def test_full_map_correlates_with_the_truth_as_c_ref_predicts(model):
    settings = replace(SETTINGS, voxel_size=1.5, resolution=4.0, box=48)
    simulation = simulate_half_maps(model, settings)
    truth = simulation.truth * simulation.mask
    full = (simulation.half_map_1 + simulation.half_map_2) / 2 * simulation.mask
    half = np.maximum(numpy_fsc(simulation.half_map_1 * simulation.mask, simulation.half_map_2 * simulation.mask), 0)
    c_ref = np.sqrt(2 * half / (1 + half))
    shells = slice(6, 17)
    np.testing.assert_allclose(numpy_fsc(full, truth)[shells], c_ref[shells], atol=0.06)


def test_noise_is_independent_and_the_truth_is_shared(simulation):
    noises = [half - simulation.truth for half in (simulation.half_map_1, simulation.half_map_2)]
    assert abs(np.corrcoef(*(noise.ravel() for noise in noises))[0, 1]) < 0.03
    for noise in noises:
        np.testing.assert_allclose(noise.std(), simulation.report["level"]["noise_deviation"], rtol=0.03)
        np.testing.assert_allclose(noise.mean(), 0, atol=1e-4 * noise.std())


def test_arrays_are_float32_of_one_shape(simulation):
    for array in (simulation.half_map_1, simulation.half_map_2, simulation.mask, simulation.truth):
        assert array.shape == (32, 32, 32)
        assert array.dtype == np.float32
    assert simulation.mask.min() == 0
    assert simulation.mask.max() == 1
    inside = simulation.truth[simulation.mask > 0.5].sum() / simulation.truth.sum()
    np.testing.assert_allclose(inside, 1, atol=0.02)


def test_model_lies_on_its_density(simulation):
    voxels = np.round(simulation.atoms.positions[:, ::-1] / 2.0).astype(int)
    assert simulation.mask[tuple(voxels.T)].min() == 1
    assert simulation.truth[tuple(voxels.T)].mean() > 5 * simulation.truth.mean()
    mirrored = voxels[:, ::-1]
    assert simulation.truth[tuple(voxels.T)].mean() > 1.5 * simulation.truth[tuple(mirrored.T)].mean()


def test_same_seed_gives_same_arrays(model, simulation):
    again = simulate_half_maps(model, SETTINGS)
    np.testing.assert_array_equal(again.half_map_1, simulation.half_map_1)
    np.testing.assert_array_equal(again.half_map_2, simulation.half_map_2)
    other = simulate_half_maps(model, replace(SETTINGS, seed=1))
    np.testing.assert_array_equal(other.truth, simulation.truth)
    assert np.abs(other.half_map_1 - simulation.half_map_1).max() > 0


def test_box_is_chosen_even_and_smooth_with_the_margin(model):
    margin = (61 - model.extent.max()) / 2  # 30.5 voxels: 32 is the next even number of factors 2, 3 and 5
    simulation = simulate_half_maps(model, replace(SETTINGS, box=None, margin=margin))
    assert simulation.truth.shape == (32, 32, 32)
    distance = np.minimum(simulation.atoms.positions, 64 - simulation.atoms.positions)
    assert distance.min() > margin


def test_belt_is_in_the_truth_around_the_middle(model, simulation):
    with_belt = simulate_half_maps(model, replace(SETTINGS, belt=Belt(thickness=15, width=10)))
    belt = with_belt.truth - simulation.truth
    assert belt.sum() > 0.05 * simulation.truth.sum()
    outside = simulation.mask < 0.5
    assert belt[outside].sum() > 0
    # All of it within its thickness of the plane through the model's center, across its longest axis.
    positions = with_belt.atoms.positions.astype(float)
    axis = np.linalg.svd(positions - positions.mean(0), full_matrices=False)[2][0]
    z, y, x = np.meshgrid(*[np.arange(32) * 2.0] * 3, indexing="ij")
    height = np.abs((np.stack([x, y, z], -1) - positions.mean(0)) @ axis)
    assert np.abs(belt[height > 12]).sum() < 0.02 * np.abs(belt).sum()


def test_bulk_solvent_lowers_the_contrast_at_low_frequencies_and_keeps_the_mask(model, simulation):
    in_solvent = simulate_half_maps(model, replace(SETTINGS, bulk_solvent=BulkSolvent(0.7, 200.0)))
    np.testing.assert_array_equal(in_solvent.mask, simulation.mask)
    axis = np.fft.fftfreq(32, 2.0)
    squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    expected = np.fft.fftn(simulation.truth) * (1 - 0.7 * np.exp(-50.0 * squared))
    np.testing.assert_allclose(in_solvent.truth, np.fft.ifftn(expected).real, atol=1e-5 * simulation.truth.max())
    assert in_solvent.truth.sum() == pytest.approx(0.3 * simulation.truth.sum(), rel=1e-3)


def test_flexible_part_is_weak_at_high_resolution_and_the_other_part_unchanged(model, simulation):
    with_motion = simulate_half_maps(model, replace(SETTINGS, flexible=Flexible(chains=("A", "B"), angle=8.0)))
    moving = np.isin(with_motion.atoms.chain, ("A", "B"))
    shift = with_motion.atoms.positions[0] - simulation.atoms.positions[0]
    assert np.abs(shift).max() < 4
    peaks = with_motion.truth[tuple(np.round(with_motion.atoms.positions[:, ::-1] / 2).astype(int).T)]
    before = simulation.truth[tuple(np.round(simulation.atoms.positions[:, ::-1] / 2).astype(int).T)]
    assert peaks[moving].mean() < 0.85 * before[moving].mean()
    np.testing.assert_allclose(peaks[~moving].mean(), before[~moving].mean(), rtol=0.05)
    np.testing.assert_allclose(with_motion.truth.sum(), simulation.truth.sum(), rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"resolution": 3.9}, "above 4 Å, twice the voxel size"),
        ({"resolution": 4.05}, "expected a resolution of 4.267 to"),
        ({"resolution": 40.0}, "expected a resolution of"),
        ({"resolution": float("nan")}, "expected a resolution"),
        ({"box": 20}, "expected a box of at least"),
        ({"voxel_size": -1.0}, "expected a voxel size"),
        ({"seed": -1}, "expected a seed"),
        ({"b_factor": float("inf")}, "expected a B-factor"),
        ({"unevenness": 9.0}, "expected an unevenness"),
        ({"margin": -3.0}, "expected a margin"),
        ({"method": "magic"}, "expected the method"),
        ({"flexible": Flexible(chains=("QQ",))}, "expected a flexible chain among A, B"),
        ({"flexible": Flexible(fraction=1.5)}, "expected a fraction"),
        ({"flexible": Flexible(angle=90)}, "expected an angle"),
        ({"belt": Belt(thickness=-1)}, "belt: expected"),
        ({"bulk_solvent": BulkSolvent(scale=1.0)}, "bulk solvent: expected a scale"),
        ({"bulk_solvent": BulkSolvent(b_factor=-1.0)}, "bulk solvent: expected"),
        ({"noise": b_factor_spectrum(900.0), "b_factor": 0.0}, "no level of the noise"),
    ],
)
def test_invalid_configurations_raise(model, change, match):
    with pytest.raises(UserError, match=match) as caught:
        simulate_half_maps(model, replace(SETTINGS, **change))
    assert "\n" not in str(caught.value)


FILES = ["entry.json", "half_map_1.mrc", "half_map_2.mrc", "mask.mrc", "model.cif", "truth.mrc"]


def test_entry_folder_is_complete(tmp_path, simulation):
    write_entry(tmp_path / "entry", simulation)
    assert sorted(os.listdir(tmp_path)) == ["entry"]
    assert sorted(os.listdir(tmp_path / "entry")) == FILES
    for name in ("half_map_1", "half_map_2", "mask", "truth"):
        path = tmp_path / "entry" / f"{name}.mrc"
        assert mrcfile.validate(path)
        with mrcfile.open(path) as file:
            np.testing.assert_array_equal(file.data, getattr(simulation, name))
            assert file.voxel_size.x == 2
    atoms = read_atoms(tmp_path / "entry/model.cif")
    np.testing.assert_allclose(atoms.positions, simulation.atoms.positions, atol=1e-3)
    assert gemmi.read_structure(str(tmp_path / "entry/model.cif")).cell.a == 64
    report = json.loads((tmp_path / "entry/entry.json").read_text())
    assert report["parameters"]["resolution"] == 6.0
    assert report["parameters"]["seed"] == 0
    assert len(report["fsc"]) == len(report["frequency"]) == 17
    np.testing.assert_allclose(report["resolution_reached"], 6, rtol=0.02)


def test_same_seed_gives_same_bytes(tmp_path, model, simulation):
    write_entry(tmp_path / "a", simulation)
    write_entry(tmp_path / "b", simulate_half_maps(model, SETTINGS))
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_existing_folders_are_replaced_only_if_simulated(tmp_path, simulation):
    write_entry(tmp_path / "entry", simulation)
    with pytest.raises(UserError, match="exists and is not replaced"):
        write_entry(tmp_path / "entry", simulation)
    (tmp_path / "entry/old").write_text("old")
    write_entry(tmp_path / "entry", simulation, overwrite=True)
    assert sorted(os.listdir(tmp_path / "entry")) == FILES
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/data").write_text("data")
    with pytest.raises(UserError, match="expected a simulated entry to replace"):
        check_entry_folder(tmp_path / "precious", overwrite=True)
    with pytest.raises(UserError, match="does not exist; make it first"):
        check_entry_folder(tmp_path / "no/entry")
    assert sorted(os.listdir(tmp_path)) == ["entry", "precious"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), UserError("x"), KeyboardInterrupt()])
def test_failure_leaves_nothing_behind_and_keeps_an_old_entry(tmp_path, simulation, monkeypatch, failure):
    write_entry(tmp_path / "entry", simulation)

    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(half_maps, "write_model", fail)
    kind = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else UserError
    for name, overwrite in (("new", False), ("entry", True)):
        with pytest.raises(kind):
            write_entry(tmp_path / name, simulation, overwrite=overwrite)
    assert sorted(os.listdir(tmp_path)) == ["entry"]
    assert sorted(os.listdir(tmp_path / "entry")) == FILES
