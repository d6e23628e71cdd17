"""Ablations: every row is a valid config, scores agree with a NumPy reference, and the table quotes the scores."""

import numpy as np
import pytest
from reference import losses

from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.entries import load_pair
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps, write_entry
from crefjax.simulate.phantom import phantom
from crefjax.training.config import flat, read_config
from crefjax.weights.store import load_weights
from experiments import ablations


@pytest.mark.parametrize("name", ablations.ROWS)
def test_every_row_differs_from_the_first_only_in_the_fields_that_it_names(name):
    first, changed = (
        flat(read_config(str(ablations.CONFIG), ablations.fields(changes, 3, "../shared/models")))
        for changes in ({}, ablations.ROWS[name])
    )
    assert first["seed"] == changed["seed"] == 3
    assert first["schedule.name"] == "cosine"
    differ = {field for field in first if first[field] != changed[field]}
    named = {"data.stream.models" if field == "models" else field for field in ablations.ROWS[name]}
    assert differ - {"steps", "epoch_steps"} == named
    voxels = [config["steps"] * config["batch"] * config["data.patch"] ** 3 for config in (first, changed)]
    assert voxels[0] == 800 * 64**3
    assert voxels[1] == pytest.approx(voxels[0], rel=0.01)


def test_entries_use_only_models_that_no_run_is_trained_on():
    stream = read_config(str(ablations.CONFIG)).data.stream
    unseen = {name.strip() for name in stream.held_out.split(",")}
    with_docking = ablations.ROWS["docking complexes too"]["data.stream.exclude"]
    unseen |= {name for name in with_docking.split(",") if name.endswith("_target")}
    assert "docking" not in stream.models
    assert {name.split("/")[1].split(".")[0] for name in ablations.ENTRIES} <= unseen


def in_mask(array, mask):
    """Subtract the mean outside the mask, and mask."""
    outside = array.astype(np.float64)[mask == 0].mean()
    return (array.astype(np.float64) - outside) * mask


@pytest.mark.slow
def test_scores_agree_with_a_numpy_reference(tmp_path):
    config = SimulationConfig(voxel_size=1.8, resolution=5.0, seed=2, margin=8.0)
    simulated = simulate_half_maps(phantom(150, seed=4), config)
    write_entry(tmp_path / "one", simulated)
    weights = load_weights("truth")
    scores = ablations.measure(weights, tmp_path / "one")
    pair = load_pair(tmp_path / "one/half_map_1.mrc", tmp_path / "one/half_map_2.mrc")
    done = {scale: denoise_maps(DenoiseRequest(pair, weights, scale=scale)).full.array for scale in ("signal", "input")}
    masked = {scale: in_mask(array, simulated.mask) for scale, array in done.items()}
    fsc = losses.fsc(masked["signal"], simulated.truth * simulated.mask)[1:-1]
    assert scores["mean_fsc"] == pytest.approx(fsc.mean(), abs=2e-3)
    halves = [in_mask(half_map.array, simulated.mask) for half_map in pair]
    full = (halves[0] + halves[1]) / 2
    half = losses.fsc(*halves)
    cref2 = np.where(half > 0, 2 * half / (1 + half), 0)
    own = losses.fsc(masked["input"], full)
    rmse = np.sqrt(np.mean((own * np.abs(own) - cref2)[1:-1] ** 2))
    assert scores["cref_rmse"] == pytest.approx(rmse, abs=2e-3)
    assert 0 < scores["error"] < 1.5
    assert scores["entry"] == "one"


def test_table_shows_means_scatter_and_differences():
    first, second = list(ablations.ROWS)[:2]
    numbers = dict.fromkeys(ablations.COLUMNS, 0.5)
    runs = [
        {"row": first, "seed": 0, **numbers, "mean_fsc": 0.7},
        {"row": first, "seed": 1, **numbers, "mean_fsc": 0.72},
        {"row": second, "seed": 1, **numbers, "mean_fsc": 0.69},
    ]
    lines = ablations.table(runs).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith(f"| {first} | 2 | 0.710 ± 0.014 | ")
    assert lines[3].startswith(f"| {second} | 1 | 0.690 (-0.030) | 0.500 (+0.000) |")
