"""The package's own weights: what they reach on two entries that are simulated here, and what is said of them.

Scores are mean FSC to the truth by NumPy, under the mask. The limits lie 0.012 to 0.018 below the gains over the
full map that were measured: weights that were damaged, mixed up or trained badly fall below them.
"""

import configparser
import glob
from pathlib import Path

import numpy as np
import pytest
from reference import losses as slow_losses

from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.maps import Map
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.simulate.noise import power_law_spectrum
from crefjax.simulate.phantom import phantom
from crefjax.weights.store import DEFAULTS, list_weights, load_weights

ENTRIES = {
    "fine": (400, SimulationConfig(voxel_size=1.2, resolution=3.0, seed=91, b_factor=40.0, margin=8.0)),
    "coarse": (
        900,
        SimulationConfig(
            voxel_size=1.6, resolution=5.2, seed=92, b_factor=80.0, margin=10.0, noise=power_law_spectrum(0.6)
        ),
    ),
}
LEAST_GAIN = {
    ("fine", "truth"): 0.09, ("fine", "cref"): 0.045, ("coarse", "truth"): 0.1, ("coarse", "cref"): 0.03,
}  # fmt: skip


@pytest.fixture(scope="module", params=ENTRIES)
def entry(request):
    residues, settings = ENTRIES[request.param]
    return request.param, simulate_half_maps(phantom(residues, seed=settings.seed), settings), settings.voxel_size


def score(map_, simulation):
    return float(slow_losses.fsc(map_ * simulation.mask, simulation.truth * simulation.mask)[1:-1].mean())


def error(map_, simulation):
    inside = simulation.mask > 0.5
    map_, truth = (each[inside] - each[inside].mean() for each in (map_.astype(np.float64), simulation.truth))
    return np.sum((map_ - truth) ** 2) / np.sum(truth**2)


def wiener(full_map, simulation):
    fsc = slow_losses.fsc(simulation.half_map_1 * simulation.mask, simulation.half_map_2 * simulation.mask)
    cut = np.flatnonzero(fsc < 0.143)[0]
    factor = np.where(np.arange(len(fsc)) < cut, 2 * fsc / (1 + fsc), 0)
    side = len(full_map)
    k = np.fft.fftfreq(side, 1 / side)
    shell = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int)
    factors = np.append(factor, 0)[np.minimum(shell, len(factor))]
    return np.fft.ifftn(np.fft.fftn(full_map - full_map[simulation.mask == 0].mean()) * factors).real


@pytest.mark.slow
@pytest.mark.parametrize("name", ["truth", "cref"])
def test_shipped_weights_improve_simulated_entries(entry, name):
    label, simulation, voxel_size = entry
    pair = tuple(Map.from_array(half, voxel_size) for half in (simulation.half_map_1, simulation.half_map_2))
    weights = load_weights(name)
    denoised = denoise_maps(DenoiseRequest(pair, weights)).full.array
    full = score((simulation.half_map_1 + simulation.half_map_2) / 2, simulation)
    assert score(denoised, simulation) > full + LEAST_GAIN[label, name]
    # On the signal's scale its error is below that of the Wiener filter, cut where the FSC falls below 0.143.
    full_map = (simulation.half_map_1 + simulation.half_map_2).astype(np.float64) / 2
    assert error(denoised, simulation) < error(wiener(full_map, simulation), simulation)


def test_weights_ship_with_the_package_and_one_is_the_default():
    own = [path for path in list_weights().values() if path.parent.name == "shipped"]
    assert [path.name for path in own] == ["classifier", "cref", "images", "truth"]
    assert DEFAULTS["denoising"] == "truth"
    assert load_weights().name == "truth"
    for path in own:
        assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) < 4e6


def test_package_data_includes_every_file_of_the_shipped_weights():
    """Patterns of `package_data` meet each file, as setuptools looks them up."""
    root = Path(__file__).parents[2]
    if not (root / "setup.cfg").is_file():
        pytest.skip("the project's setup.cfg is not beside its tests")
    settings = configparser.ConfigParser()
    settings.read(root / "setup.cfg", encoding="utf-8")
    patterns = settings["options.package_data"]["crefjax.weights"].split()
    package = root / "crefjax" / "weights"
    held = {Path(path) for pattern in patterns for path in glob.glob(str(package / pattern), recursive=True)}
    assert held >= {path for path in (package / "shipped").rglob("*") if path.is_file()}
    assert {package / "shipped" / name / "card.json" for name in ("classifier", "cref", "images", "truth")} <= held


def test_shipped_weights_and_checkpoints_contain_no_absolute_path():
    """Orbax writes where it wrote."""
    root = Path(__file__).parents[2]
    files = list((root / "crefjax/weights/shipped").rglob("commit_success.txt"))
    assert files
    files += (root / "experiments/checkpoints").rglob("commit_success.txt")
    for file in files:
        assert "/" not in file.read_text(encoding="utf-8")
