"""What is not finite is left out, named and counted, harms nothing, and ends a run only if it goes on."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toy_task import POINTS, Line, NumpyAdam, batch_of, config, numpy_run, parameters, rows, run, source
from test_step import DENOISING, maps
from test_step import run as run_steps

from crefjax.errors import UserError
from crefjax.simulate.phantom import phantom
from crefjax.simulate.stream import StreamConfig
from crefjax.simulate.stream.batches import stream_half_maps
from crefjax.training.loop import train
from crefjax.training.step import unreplicate
from crefjax.training.stream_source import StreamBatches, make_standardizer
from crefjax.training.task import DataSource


def poisoned(batch, *samples):
    """A copy of a batch of points, with one number of some samples not finite."""
    batch = {name: array.copy() for name, array in batch.items()}
    for number in samples:
        batch["x"][number, number % POINTS] = (np.nan, np.inf, -np.inf)[number % 3]
    return batch


def without(batch, *samples):
    return {name: np.delete(array, samples, axis=0) for name, array in batch.items()}


def slow_parameters(batches):
    """Parameters of a slow Adam after these batches."""
    slow = NumpyAdam(0.05)
    for batch in batches:
        slow.step(batch)
    return slow.p


def line_of(state):
    found = unreplicate(state.parameters)
    return [*found["w"], found["b"]]


# On two devices the first has samples 0 to 3; (0, 1, 2, 3, 6) leaves it without any.
@pytest.mark.parametrize("bad", [(5,), (0, 7), (0, 1, 2, 3, 6)])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_step_agrees_with_numpy_on_the_finite_samples(devices, bad):
    batches = [batch_of(range(8 * k, 8 * k + 8)).batch for k in range(3)]
    spoiled = [batches[0], poisoned(batches[1], *bad), batches[2]]
    found, state = run_steps(Line(), spoiled, devices)
    slow = NumpyAdam(0.05)
    slow.step(batches[0])
    kept = np.setdiff1d(np.arange(8), bad)
    losses, norm = slow.step(without(batches[1], *bad))
    np.testing.assert_array_equal(found[1]["finite"], np.isin(np.arange(8), kept))
    np.testing.assert_allclose(found[1]["losses"][kept], losses, rtol=1e-4)
    np.testing.assert_allclose(found[1]["absolute"][kept] ** 2, losses, rtol=1e-4)
    np.testing.assert_allclose(found[1]["gradient_norm"], norm, rtol=1e-4)
    assert np.isnan(found[1]["losses"][list(bad)]).all()
    assert np.isnan(found[1]["absolute"][list(bad)]).all()
    slow.step(batches[2])
    np.testing.assert_allclose(line_of(state), slow.p, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_network_learns_from_the_other_maps():
    whole = maps(0)
    spoiled = {name: array.copy() for name, array in whole.items()}
    spoiled["half_map_2"][3, 4, 4, 4] = np.nan
    spoiled["half_map_1"][6] = np.inf
    # Adam would make much of rounding, where a gradient is next to 0.
    found, state = run_steps(DENOISING, [spoiled], 1, optimizer__name="sgd")
    expected, state_of_others = run_steps(DENOISING, [without(whole, 3, 6)], 1, optimizer__name="sgd")
    np.testing.assert_allclose(np.delete(found[0]["losses"], [3, 6]), expected[0]["losses"], rtol=1e-4)
    np.testing.assert_allclose(found[0]["gradient_norm"], expected[0]["gradient_norm"], rtol=1e-4)
    trees = (unreplicate(each.parameters) for each in (state, state_of_others))
    jax.tree.map(lambda leaf, other: np.testing.assert_allclose(leaf, other, atol=1e-5), *trees)


class Steep(Line):
    """A finite loss whose gradient is not, in batches that have a `y` above 50."""

    def loss(self, parameters, batch, key):
        value, more = super().loss(parameters, batch, key)
        return value + jnp.sqrt(jnp.maximum(parameters["b"] - parameters["b"], 0) + (batch["y"].max() < 50)), more


def overflowing(batch):
    """Finite points of which the square of one is not."""
    return batch | {"y": np.where(np.arange(len(batch["y"])) == 2, np.float32(1e30), batch["y"])}


def steep(batch):
    return batch | {"y": batch["y"] + np.float32(100)}


@pytest.mark.parametrize(
    ("spoil", "task"), [(lambda batch: poisoned(batch, *range(8)), Line()), (overflowing, Line()), (steep, Steep())]
)
@pytest.mark.parametrize("optimizer", ["adam", "muon", "sgd"])
def test_a_step_without_a_finite_gradient_changes_nothing(spoil, task, optimizer):
    batches = [batch_of(range(8 * k, 8 * k + 8)).batch for k in range(2)]
    fields = {"average": 0.5, "optimizer__name": optimizer}
    (_, metrics), state = run_steps(task, [batches[0], spoil(batches[1])], 2, **fields)
    _, before = run_steps(task, batches[:1], 2, **fields)
    assert np.isnan(metrics["gradient_norm"])
    assert np.isfinite(metrics["losses"]).all() == isinstance(task, Steep)
    assert np.abs(line_of(before)).min() > 0
    assert unreplicate(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, *(unreplicate(each)[1:] for each in (state, before)))


def test_a_sample_that_is_not_finite_is_skipped_named_and_counted(tmp_path):
    def spoil(step, batch):
        if step == 8:
            batch["y"][2] = np.nan

    lines = []
    result = run(tmp_path, source(hook=spoil), lines=lines, log_every=2)
    assert result.step == 10
    # sample 30 is the third of step 8, and of entry 30 % 3
    warning = "warning: the input of step 8 is not finite, with data of entry_0; these samples are skipped"
    assert [line for line in lines if "warning" in line] == [warning]
    trained = rows(tmp_path, "training")
    assert [row["left_out"] for row in trained] == [0, 0, 0, 1, 0]
    batches = [batch_of(range(4 * k, 4 * k + 4)).batch for k in range(10)]
    batches[7] = without(batches[7], 2)
    np.testing.assert_allclose(parameters(tmp_path), slow_parameters(batches), rtol=1e-4)
    slow, losses = NumpyAdam(0.05), []
    for batch in batches[:8]:
        losses.append(slow.step(batch)[0])
    assert trained[3]["loss"] == pytest.approx(np.concatenate(losses[6:]).mean(), rel=1e-4)


def test_too_many_samples_that_are_not_finite_end_the_run(tmp_path):
    """Half of every step from the fourth on: the fifth of these is the one with which it is more than a tenth of 20."""

    def spoil(step, batch):
        if step >= 4:
            batch["y"][2:] = np.nan

    with pytest.raises(UserError) as caught:
        run(tmp_path, source(hook=spoil), checkpoint__every_steps=3)
    message = str(caught.value)
    assert "\n" not in message
    # samples 30 and 31 are the last two of step 8
    assert f"{tmp_path}: the input of step 8 is not finite, with data of entry_0, entry_1, and more than 10%" in message
    assert "the checkpoint of step 6 is whole; check these data" in message
    assert [row["step"] for row in rows(tmp_path, "training")] == list(range(1, 8))
    assert run(tmp_path, checkpoint__every_steps=3).step == 10
    batches = [batch_of(range(4 * k, 4 * k + 4)).batch for k in range(10)]
    batches[3:6] = [without(batch, 2, 3) for batch in batches[3:6]]
    np.testing.assert_allclose(parameters(tmp_path), slow_parameters(batches), rtol=1e-4)


@pytest.mark.parametrize(("spoil", "task", "what"), [(overflowing, Line(), "loss"), (steep, Steep(), "gradient")])
def test_three_steps_without_a_finite_gradient_end_the_run(tmp_path, spoil, task, what):
    def hook(step, batch):
        if step > 1:
            batch |= spoil(batch)

    lines = []
    with pytest.raises(UserError, match=rf"the {what} of step 4 is not finite, .*entry_.*there is no checkpoint yet"):
        run(tmp_path, source(hook=hook), task=task, lines=lines)
    assert [line.split(" is ")[0] for line in lines] == [f"warning: the {what} of step {k}" for k in (2, 3)]
    assert all(line.endswith("; this step changes nothing") for line in lines)
    if what == "loss":  # samples 6 and 10 are the third of steps 2 and 3
        assert [line.split("data of ")[1].split(";")[0] for line in lines] == ["entry_0", "entry_1"]
    assert [row["left_out"] for row in rows(tmp_path, "training")] == [0, 4, 4]


def test_skipped_samples_of_long_ago_do_not_end_a_run(tmp_path):
    """Two whole steps of any 20 may be lost, over and over."""

    def spoil(step, batch):
        if step % 10 == 0:
            batch["x"][:] = np.inf

    result = run(tmp_path, source(hook=spoil), epochs=9)
    assert result.step == 45
    assert np.isfinite(parameters(tmp_path)).all()


def test_skipped_samples_are_still_counted_after_resuming(tmp_path):
    """And lines of metrics that have steps from before it are the same."""

    class End(BaseException):
        pass

    def spoil(step, batch, last=None):
        if step == last:
            raise End
        if step in (1, 2, 5):
            batch["y"][:2] = np.nan
        if step == 3:
            batch["y"][:] = np.nan

    fields = {"log_every": 4, "checkpoint__every_steps": 1}
    outcomes = []
    for folder in (tmp_path / "whole", tmp_path / "ended"):
        if folder.name == "ended":
            with pytest.raises(End):
                run(folder, source(hook=lambda step, batch: spoil(step, batch, last=4)), **fields)
        with pytest.raises(UserError) as caught:
            run(folder, source(hook=spoil), **fields)
        outcomes.append(str(caught.value).split(": ", 1)[1])
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].startswith("the input of step 5 is not finite")
    (line,), (again,) = (rows(tmp_path / name, "training") for name in ("whole", "ended"))
    assert (line["loss"], line["gradient_norm"], line["left_out"]) == tuple(
        again[name] for name in ("loss", "gradient_norm", "left_out")
    )
    assert line["left_out"] == 2 + 2 + 4


def test_checkpoints_of_earlier_versions_are_resumed(tmp_path):
    run(tmp_path, log_every=4, epoch_steps=3, epochs=1)
    about = tmp_path / "checkpoints/3/about/metadata"
    kept = json.loads(about.read_text())
    run_values = kept["run"]
    for name, old in (
        ("pending_metrics", "told"),
        ("pretraining", "before"),
        ("evaluations_without_improvement", "worse"),
    ):
        run_values[old] = run_values.pop(name)
    del run_values["left_out"]
    for numbers in run_values["told"]:
        del numbers["left_out"]
    about.write_text(json.dumps(kept))
    assert run(tmp_path, log_every=4, epoch_steps=3, epochs=2).step == 6
    (line,) = rows(tmp_path, "training")
    assert line["left_out"] == 0
    assert line["loss"] == pytest.approx(np.mean([loss for loss, _ in numpy_run(4)[0]]), rel=1e-4)


class Poisoned:
    """A stream that gives NaN for the density of its second model."""

    def __init__(self, stream):
        self._stream, self.names = stream, stream.names
        self.get_state, self.set_state = stream.get_state, stream.set_state

    def __next__(self):
        batch = next(self._stream)
        bad = jnp.asarray(batch.info.model == 1).reshape(-1, 1, 1, 1)
        maps = ("half_map_1", "half_map_2", "truth")
        return batch._replace(**{name: jnp.where(bad, jnp.nan, getattr(batch, name)) for name in maps})


class Scale(Line):
    """A number that brings one half-map near to the other."""

    def loss(self, parameters, batch, key):
        return jnp.square(parameters["b"] * batch["half_map_1"] - batch["half_map_2"]).mean((1, 2, 3)), {}


def test_a_model_of_the_stream_that_gives_no_finite_maps_is_named(tmp_path):
    models = [dataclasses.replace(phantom(40), source=name) for name in ("good.cif", "bad.cif")]
    stream_config = StreamConfig(resolution=(2.2, 3.0))
    stream = stream_half_maps(models, shares=(19, 1), patch=16, batch=4, config=stream_config)
    streamed = StreamBatches(Poisoned(stream), make_standardizer(0.5, (1.0, 1.0)))
    source = DataSource(None, lambda: streamed, None, "simulated patches")
    lines = []
    train(config(epochs=1, epoch_steps=20), tmp_path, Scale(), source, say=lines.append)
    stream.set_state({"seed": 0, "position": 0})
    drawn = np.concatenate([next(stream).info.model for _ in range(20)])
    assert 0 < drawn.sum() < 8
    warnings = [line for line in lines if "warning" in line]
    assert len(warnings) == len({k // 4 for k in np.flatnonzero(drawn)})
    assert all(line.endswith("with data of bad.cif; these samples are skipped") for line in warnings)
    assert sum(row["left_out"] for row in rows(tmp_path, "training")) == drawn.sum()
    assert np.isfinite(parameters(tmp_path)).all()
