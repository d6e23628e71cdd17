"""Ablations: every row is a valid config, scores agree with a NumPy reference, and the table quotes the scores."""

import numpy as np
import pytest
from reference import losses as slow_losses

from crefjax.inference.denoise import denoise_maps, plan_denoise
from crefjax.io.entries import load_pair
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps, write_entry
from crefjax.simulate.phantom import phantom
from crefjax.training.config import flat, read_config
from crefjax.weights.store import load_weights
from experiments import ablations


@pytest.mark.parametrize("name", ablations.ROWS)
def test_every_row_is_a_config_that_differs_from_the_first_in_what_it_says(name):
    first, changed = (
        flat(read_config(str(ablations.CONFIG), ablations.fields(one, 3, "../shared/models")))
        for one in ({}, ablations.ROWS[name])
    )
    assert first["seed"] == changed["seed"] == 3
    assert first["schedule.name"] == "cosine"
    differ = {field for field in first if first[field] != changed[field]}
    named = {"data.stream.models" if field == "models" else field for field in ablations.ROWS[name]}
    assert differ - {"steps", "epoch_steps"} == named
    voxels = [one["steps"] * one["batch"] * one["data.patch"] ** 3 for one in (first, changed)]
    assert voxels[0] == 800 * 64**3
    assert voxels[1] == pytest.approx(voxels[0], rel=0.01)


def test_entries_are_of_the_models_for_choosing():
    stream = read_config(str(ablations.CONFIG)).data.stream
    unseen = {name.strip() for name in stream.held_out.split(",")}
    with_docking = ablations.ROWS["docking complexes too"]["data.stream.exclude"]
    unseen |= {name for name in with_docking.split(",") if name.endswith("_target")}
    assert "docking" not in stream.models
    assert {name.split("/")[1].split(".")[0] for name in ablations.ENTRIES} <= unseen


def in_mask(one, mask):
    """Above the mean outside the mask, as what is 0 there is cut out without an edge."""
    outside = one.astype(np.float64)[mask == 0].mean()
    return (one.astype(np.float64) - outside) * mask


def test_what_is_measured(tmp_path):
    made = simulate_half_maps(
        phantom(150, seed=4), SimulationConfig(voxel_size=1.8, resolution=5.0, seed=2, margin=8.0)
    )
    write_entry(tmp_path / "one", made)
    weights = load_weights("truth")
    found = ablations.measure(weights, tmp_path / "one")
    pair = load_pair(tmp_path / "one/half_map_1.mrc", tmp_path / "one/half_map_2.mrc")
    done = {
        scale: denoise_maps(pair, weights, plan_denoise(pair, weights, scale=scale), scale=scale).full.array
        for scale in ("signal", "input")
    }
    masked = {name: in_mask(one, made.mask) for name, one in done.items()}
    fsc = slow_losses.fsc(masked["signal"], made.truth * made.mask)[1:-1]
    assert found["mean_fsc"] == pytest.approx(fsc.mean(), abs=2e-3)
    halves = [in_mask(one.array, made.mask) for one in pair]
    full = (halves[0] + halves[1]) / 2
    half = slow_losses.fsc(*halves)
    cref2 = np.where(half > 0, 2 * half / (1 + half), 0)
    own = slow_losses.fsc(masked["input"], full)
    rmse = np.sqrt(np.mean((own * np.abs(own) - cref2)[1:-1] ** 2))
    assert found["cref_rmse"] == pytest.approx(rmse, abs=2e-3)
    assert 0 < found["error"] < 1.5
    assert found["entry"] == "one"


def test_the_table():
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
