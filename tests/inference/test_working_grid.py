"""The network on the working grid: place of the output, input, rotations, parts, and invalid settings."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_network import CONFIG

import crefjax
from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.memory_plan import affordable_rotations, part_around, plan_denoise, plan_network
from crefjax.inference.network import cube_rotations, run_network, run_rotated
from crefjax.inference.request import DenoiseRequest
from crefjax.io.maps import Map
from crefjax.models.unet3d import UNet3D, UNet3DConfig
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.simulate.phantom import phantom
from crefjax.spectral.b_factors import apply_b_factor
from crefjax.weights.store import Weights

VOXEL = 1.1


@pytest.fixture
def on_a_grid(weights):
    """Return weights for a grid on which the resolution takes three voxels."""
    return replace(weights, card={"grid": 3.0})


@pytest.fixture(scope="module")
def simulated():
    """Half-maps at 5 Å without additional blur."""
    return simulate_half_maps(phantom(900, seed=2), SimulationConfig(voxel_size=2.0, resolution=5.0, seed=3, box=64))


@pytest.fixture
def identity(monkeypatch):
    """Replace the network by one that returns its input; return the list of its inputs."""
    inputs = []

    def same(parameters, array, config, **more):
        inputs.append(array)
        return array.copy()

    monkeypatch.setattr("crefjax.inference.network.run_network", same)
    return inputs


def blob_pair(shape, place):
    """Return two half-maps of a blob with its center at a place in voxels, in white noise, and the blob."""
    axes = np.meshgrid(*(np.arange(side) for side in shape), indexing="ij")
    squared = sum((axis - at) ** 2 for axis, at in zip(axes, place, strict=True))
    blob = np.exp(-squared / (2 * 5.0**2)) * (1 + 0.8 * np.cos(1.7 * np.sqrt(squared)))
    random = np.random.default_rng(1)
    halves = (Map.from_array((10 * blob + 0.02 * random.normal(size=shape)).astype(np.float32), VOXEL) for _ in "12")
    return tuple(halves), blob


@pytest.mark.parametrize("shape", [(48, 48, 48), (45, 45, 45), (40, 45, 51)])
@pytest.mark.parametrize("resolution", [2.5, 4.6])
@pytest.mark.parametrize("scale", ["none", "input", "signal"])
def test_output_overlays_input(on_a_grid, identity, shape, resolution, scale):
    """With a network that returns its input, the center of the output is that of the input to 1/100 voxel."""
    place = [0.46 * side for side in shape]
    pair, blob = blob_pair(shape, place)
    found = crefjax.denoise(*pair, weights=on_a_grid, resolution=resolution, scale=scale, rotations=1)
    assert found.array.shape == shape
    assert found.voxel_size == VOXEL
    assert all(array.shape != shape for array in identity)
    out = found.array.astype(np.float64) - np.median(found.array)
    inside = blob > 0.2
    for axis, indices in enumerate(np.nonzero(inside)):
        center, expected = (np.average(indices, weights=values[inside]) for values in (out, blob))
        assert center == pytest.approx(expected, abs=0.01), axis


def test_network_input_is_standardized_within_the_mask(on_a_grid, identity):
    """The full map has solvent at 0 and a root mean square of 1 within the mask; the half-maps use its numbers."""
    pair, blob = blob_pair((48, 48, 48), (22, 23, 24))
    mask = (blob > 0.02).astype(np.float32)
    # The resolution leaves the grid as it is.
    request = DenoiseRequest(pair, on_a_grid, pair[0].replace_array(mask), resolution=3.3)
    denoise_maps(request)
    blur = plan_denoise(request).grid.blur
    assert blur > 0
    first, second = (apply_b_factor(map_.array, map_.voxel_size, blur) for map_ in pair)
    full = (first + second) / 2
    level = full[mask == 0].mean()
    rms = np.sqrt(np.mean((full[mask > 0] - level) ** 2))
    for received, array in zip(identity, (full, first, second), strict=True):
        np.testing.assert_allclose(received, (array - level) / rms * mask, atol=1e-4)


def test_weights_without_a_grid_use_the_grid_of_the_map(weights):
    pair, _ = blob_pair((32, 32, 32), (15, 16, 17))
    plan = plan_denoise(DenoiseRequest(pair, weights, scale="none"))
    assert plan.grid.shape == (32, 32, 32)
    full = (pair[0].array + pair[1].array) / 2
    x = (full - full.mean(dtype=np.float64)) / full.std(dtype=np.float64)
    expected = run_network(weights.parameters, x.astype(np.float32), CONFIG, slab=plan.slab)
    found = crefjax.denoise(*pair, weights=weights, scale="none").array
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert plan_denoise(DenoiseRequest(pair, weights, grid="data", resolution=5.0)).grid.shape != (32, 32, 32)


def test_plan_is_for_the_working_grid(on_a_grid):
    pair, _ = blob_pair((64, 64, 64), (30, 31, 32))
    plan = plan_denoise(DenoiseRequest(pair, on_a_grid, resolution=6.6, scale="none", rotations=1))
    assert plan.grid.shape == (32, 32, 32)
    same = plan_network((32, 32, 32), CONFIG, plan.device, host_maps=0)
    assert plan.slab == same.slab
    assert plan.device_bytes == same.device_bytes
    on_its_own = plan_denoise(DenoiseRequest(pair, on_a_grid, resolution=6.6, scale="none", grid="input"))
    assert on_its_own.device_bytes > 4 * plan.device_bytes


@pytest.mark.parametrize(
    ("card", "blurred"), [({}, False), ({"corrects_falloff": True}, True), ({"corrects_falloff": False}, False)]
)
def test_card_says_whether_the_fall_off_is_corrected_on_the_grid_of_the_map(weights, simulated, card, blurred):
    pair = tuple(Map.from_array(array, 2.0) for array in (simulated.half_map_1, simulated.half_map_2))
    mask = Map.from_array(simulated.mask, 2.0)
    plan = plan_denoise(DenoiseRequest(pair, replace(weights, card=card), mask))
    assert plan.grid.shape == pair[0].array.shape
    assert (plan.grid.blur > 20) == blurred  # the signal falls off less than it should for a network
    assert blurred or plan.grid.blur == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1.5}, r"`resolution`: expected 2\.2 Å .* to 8\.8 Å .*, found 1\.5"),
        ({"resolution": 20.0}, "found 20"),
        ({"grid": "mine"}, "`grid`: expected one of data, input, found mine"),
        ({"rotations": 3}, "`rotations`: expected one of 1, 4, 24, found 3"),
    ],
)
def test_invalid_settings_are_refused(on_a_grid, options, message):
    pair, _ = blob_pair((32, 32, 32), (15, 16, 17))
    with pytest.raises(UserError, match=message):
        DenoiseRequest(pair, on_a_grid, **options)


def test_single_map_reports_its_estimated_resolution(on_a_grid):
    pair, _ = blob_pair((48, 48, 48), (22, 23, 24))
    result = denoise_maps(DenoiseRequest(pair[:1], on_a_grid, resolution=5.0))
    assert not any("estimated" in note for note in result.notes)
    notes = denoise_maps(DenoiseRequest(pair[:1], on_a_grid)).notes
    assert any("`resolution`" in note for note in notes)


def test_affordable_rotations():
    box = (100, 100, 100)
    for working, expected in (((100,) * 3, 1), ((64,) * 3, 1), ((60,) * 3, 4), ((34,) * 3, 4), ((32,) * 3, 24)):
        assert affordable_rotations(working, box) == expected


@pytest.mark.parametrize("number", [1, 4, 24])
def test_rotated_output_is_the_mean_over_rotated_boxes(number, tmp_path):
    """The expected rotations are quarter turns of NumPy: all 24 orientations, or the half turns alone."""
    config = UNet3DConfig(depth=1, down_width=2, up_width=2, last_widths=(2,))
    parameters = UNet3D(config).init(jax.random.key(3), jnp.zeros((1, 4, 4, 4, 1)))["params"]
    weights = Weights("tiny", tmp_path, config, {}, parameters)
    x = np.random.default_rng(2).normal(size=(8, 8, 8)).astype(np.float32)

    def turns(array):
        """Yield every orientation of a box, by the face that is up and its spin, with its inverse."""
        for face in range(6):
            axes, times = ((1, 2), face) if face < 4 else ((0, 2), 1 if face == 4 else 3)
            for spin in range(4):
                turned = np.rot90(np.rot90(array, times, axes), spin, (0, 1))

                def back(out, spin=spin, times=times, axes=axes):
                    return np.rot90(np.rot90(out, -spin, (0, 1)), -times, axes)

                yield turned, back

    half_turns = [lambda a: a, *(lambda a, axes=axes: np.rot90(a, 2, axes) for axes in ((0, 1), (0, 2), (1, 2)))]
    pairs = list(turns(x)) if number == 24 else [(turn(x), turn) for turn in half_turns[:number]]
    run = {"slab": 8, "device": jax.devices()[0]}
    outputs = [back(run_network(parameters, np.ascontiguousarray(turned), config, slab=8)) for turned, back in pairs]
    assert len(outputs) == len(cube_rotations(number)) == number
    np.testing.assert_allclose(run_rotated(weights, x, number, **run), np.mean(outputs, axis=0), atol=1e-5)


def test_part_around_a_mask():
    """The margin is 12 voxels; start and length are multiples of the network's, within the box."""
    mask = np.zeros((100, 60, 80), np.float32)
    mask[40:61, 5:20, 30:70] = 1
    assert part_around(mask, (100, 60, 80), 8) == (slice(24, 80), slice(0, 32), slice(16, 80))
    # On a grid twice as fine: 80 to 122, 10 to 40 and 60 to 140, with 12 voxels more on either side.
    assert part_around(mask, (200, 120, 160), 4) == (slice(68, 136), slice(0, 52), slice(48, 152))


def test_denoising_half_maps_in_part_gives_nearly_the_same_map(weights):
    """The network is random."""
    side = 96
    z, y, x = np.meshgrid(*[np.arange(side) - side / 2] * 3, indexing="ij")
    random = np.random.default_rng(0)
    body = 4 * np.exp(-(z**2 + (y / 1.3) ** 2 + x**2) / 40) * (1 + 0.5 * np.sin(1.3 * x + 0.7 * y))
    pair = tuple(Map.from_array(body + 0.5 * random.standard_normal((side,) * 3), 1.5) for _ in range(2))
    request = DenoiseRequest(pair, weights, scale="signal")
    plan = plan_denoise(request)
    assert plan.part is None
    part = part_around(request.region.array, (side,) * 3, weights.config.multiple)
    assert all(piece.stop - piece.start < 80 for piece in part)
    whole, around = (denoise_maps(request, each) for each in (plan, replace(plan, part=part)))
    assert np.std(around.full.array - whole.full.array) < 0.005 * whole.full.array.std()


def test_part_is_planned_only_if_it_saves_time(on_a_grid):
    def planned(side, radius, **words):
        z, y, x = np.meshgrid(*[np.arange(side) - side / 2] * 3, indexing="ij")
        mask = Map.from_array((z**2 + y**2 + x**2 < radius**2).astype(np.float32), 1.0)
        random = np.random.default_rng(1)
        body = 3 * mask.array * (1 + random.standard_normal((side,) * 3))
        pair = tuple(Map.from_array(body + random.standard_normal((side,) * 3), 1.0) for _ in range(2))
        return plan_denoise(DenoiseRequest(pair, on_a_grid, mask, grid="input", **words))

    small, large = planned(64, 12), planned(160, 30)
    assert small.part is None
    assert large.part is not None
    assert planned(160, 30, half_maps=True).part is None
    assert planned(160, 30, scale="input").part is None
    assert planned(160, 70).part is None
