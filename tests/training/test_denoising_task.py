"""The task of the network on half-maps: its losses and metrics against NumPy's, and what cannot be is refused."""

import jax
import numpy as np
import pytest
from helpers.toy_task import config
from reference import losses as slow

from crefjax.errors import UserError
from crefjax.models.unet3d import UNet3DConfig, apply_network
from crefjax.training.denoising import DenoisingTask, denoising_task
from crefjax.weights.store import load_weights

NETWORK = UNet3DConfig(depth=1, down_width=2, up_width=2, last_widths=(2,))
TINY = {"network__depth": 1, "network__down_width": 2, "network__up_width": 2, "network__last_widths": (2,)}


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(8)
    truth = random.standard_normal((2, 8, 8, 8))
    halves = [truth + random.standard_normal(truth.shape) for _ in range(2)]
    names = ("half_map_1", "half_map_2", "truth")
    return {name: map_.astype(np.float32) for name, map_ in zip(names, (*halves, truth), strict=True)}


@pytest.fixture(scope="module")
def denoised(batch):
    """The first parameters; outputs for the full map and for either half-map."""
    parameters = DenoisingTask(NETWORK, {}).init(jax.random.key(0))
    apply = jax.jit(lambda maps: apply_network(parameters, maps[..., None], NETWORK)[..., 0])
    first, second = batch["half_map_1"], batch["half_map_2"]
    return parameters, [np.asarray(apply(map_), float) for map_ in ((first + second) / 2, first, second)]


def test_losses_and_metrics_agree_with_numpy(batch, denoised):
    parameters, (full, *halves) = denoised
    task = DenoisingTask(NETWORK, {"cref_l1": 0.5, "fsc": 2.0, "truth_fsc": 0.0})
    loss, aux = jax.jit(task.loss)(parameters, batch, None)
    metrics = jax.jit(task.metrics)(parameters, batch)
    m1, m2, truth = (batch[name].astype(float) for name in ("half_map_1", "half_map_2", "truth"))
    for k in range(2):
        cref_l1 = slow.cref_l1(full[k], m1[k], m2[k])
        fsc = slow.fsc_loss(halves[0][k], halves[1][k], m1[k], m2[k])
        assert loss[k] == pytest.approx(0.5 * cref_l1 + 2 * fsc, abs=2e-5)
        expected = {
            "loss": 0.5 * cref_l1 + 2 * fsc,
            "cref_l1": cref_l1,
            "fsc": fsc,
            "cref_rmse": slow.cref_rmse(full[k], m1[k], m2[k]),
            "fsc_truth": 1 - slow.truth_fsc(full[k], truth[k]),
            "fsc_truth_full": 1 - slow.truth_fsc((m1[k] + m2[k]) / 2, truth[k]),
        }
        assert {name: float(values[k]) for name, values in metrics.items()} == pytest.approx(expected, abs=2e-5)
        assert {name: float(values[k]) for name, values in aux.items()} == pytest.approx(
            {"cref_l1": cref_l1, "fsc": fsc}, abs=2e-5
        )


def test_the_mask_defaults_to_the_whole_box(batch, denoised):
    parameters, (full, *_) = denoised
    task = DenoisingTask(NETWORK, {"cref_l1_masked": 1.0})
    m1, m2 = (batch[name].astype(float) for name in ("half_map_1", "half_map_2"))
    mask = np.random.default_rng(9).uniform(0, 1, m1.shape).astype(np.float32)
    for weight, more in ((mask, {"mask": mask}), (np.ones_like(mask), {})):
        loss, _ = jax.jit(task.loss)(parameters, {**batch, **more}, None)
        expected = [slow.cref_l1_masked(full[k], m1[k], m2[k], weight[k]) for k in range(2)]
        np.testing.assert_allclose(loss, expected, atol=2e-5)


def test_a_config_gives_the_task_and_its_initial_weights(tmp_path, denoised):
    task = denoising_task(config(**TINY, losses__fsc=0.25), truth=False)
    assert task.network == NETWORK
    assert {name: factor for name, factor in task.loss_weights.items() if factor} == {"cref_l1": 1.0, "fsc": 0.25}
    task.export(tmp_path / "w", denoised[0], {"training": "none yet", "step": 3})
    task.export(tmp_path / "w", denoised[0], {"training": "none yet", "step": 4})
    found = load_weights(tmp_path / "w")
    assert found.config == NETWORK
    assert found.card["step"] == 4
    again = denoising_task(config(**TINY, weights=str(tmp_path / "w")), truth=False)
    assert (task.pretraining, again.pretraining) == (None, "none yet")
    start = again.init(jax.random.key(9))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, start, denoised[0])))
    half = denoising_task(config(**TINY, weights=str(tmp_path / "w"), network__compute_dtype="bfloat16"), truth=False)
    assert half.network.compute_dtype == "bfloat16"
    with pytest.raises(UserError, match=r"w: expected weights for UNet3DConfig\(depth=5.*found some for .*depth=1"):
        denoising_task(config(weights=str(tmp_path / "w")), truth=False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"network__depth": 0}, "network: .* at least 1"),
        ({"network__last_widths": (0,)}, "network: .* at least 1"),
        ({"network__last_widths": (4.5,)}, "network: .* whole numbers"),
        ({"losses__truth_fsc": 1.0}, "losses.truth_fsc: expected data with a truth, found none"),
        ({"losses__cref_l1": 0.0}, "expected a weight above 0 for at least one of"),
        ({"weights": "nowhere"}, "nowhere"),
    ],
)
def test_invalid_settings_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        denoising_task(config(**fields), truth=False)
