"""The package's own weights: what they reach on two entries that are simulated here, and what is said of them.

Scores are mean FSC to the truth by NumPy, under the mask. The limits lie a little below what was measured, 0.02 or more
above the full map: weights that were damaged, mixed up or trained badly fall below them.
"""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import slow_losses

from crefjax.inference.denoise import denoise_maps, plan_denoise
from crefjax.io.maps import Map
from crefjax.simulate.halfmaps import Settings, simulate_half_maps
from crefjax.simulate.noise import power_law
from crefjax.simulate.phantom import phantom
from crefjax.weights.store import DEFAULT, list_weights, load_weights

ENTRIES = {
    "fine": (400, Settings(voxel_size=1.2, resolution=3.0, seed=91, b_factor=40.0, margin=8.0)),
    "coarse": (
        900,
        Settings(voxel_size=2.0, resolution=6.4, seed=92, b_factor=100.0, margin=12.0, noise=power_law(0.6)),
    ),
}
LEAST_GAIN = {
    ("fine", "truth"): 0.05, ("fine", "cref"): 0.02, ("coarse", "truth"): 0.05, ("coarse", "cref"): 0.02,
}  # fmt: skip


@pytest.fixture(scope="module", params=ENTRIES)
def entry(request):
    residues, settings = ENTRIES[request.param]
    return request.param, simulate_half_maps(phantom(residues, seed=settings.seed), settings), settings.voxel_size


def score(one, made):
    return float(slow_losses.fsc(one * made.mask, made.truth * made.mask)[1:-1].mean())


@pytest.mark.parametrize("name", ["truth", "cref"])
def test_scores_on_entries_that_are_made_here(entry, name):
    label, made, voxel_size = entry
    pair = tuple(Map.from_array(half, voxel_size) for half in (made.half_map_1, made.half_map_2))
    weights = load_weights(name)
    denoised = denoise_maps(pair, weights, plan_denoise(pair, weights)).full.array
    full = score((made.half_map_1 + made.half_map_2) / 2, made)
    assert score(denoised, made) > full + LEAST_GAIN[label, name]
    # On the signal's scale it is the truth's, too: the error is below that of any factors per shell.
    inside = made.mask > 0.5
    variation = made.truth[inside] - made.truth[inside].mean()
    error = np.mean((denoised[inside] - denoised[inside].mean() - variation) ** 2) / np.mean(variation**2)
    assert error < 0.5


def test_they_ship_with_the_package_and_are_its_default():
    own = [path for path in list_weights().values() if path.parent.name == "shipped"]
    assert [path.name for path in own] == ["cref", "truth"]
    assert DEFAULT == "truth"
    assert load_weights().name == "truth"
    for path in own:
        assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) < 2e6


def test_the_wheel_is_told_to_hold_every_file_of_them():
    """Patterns of `package_data` meet each file, as setuptools looks them up."""
    import configparser

    root = Path(__file__).parents[2]
    if not (root / "setup.cfg").is_file():
        pytest.skip("the project's setup.cfg is not beside its tests")
    settings = configparser.ConfigParser()
    settings.read(root / "setup.cfg", encoding="utf-8")
    patterns = settings["options.package_data"]["crefjax.weights"].split()
    package = root / "crefjax" / "weights"
    held = {path for pattern in patterns for path in package.glob(pattern) if path.is_file()}
    assert held >= {path for path in (package / "shipped").rglob("*") if path.is_file()}
    assert len(held) >= 8
    assert importlib.metadata.version("crefjax")
