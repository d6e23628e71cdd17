import jax
import numpy as np
import pytest
from helpers.toy_task import Line, batch_of, held_out_numbers, source

from crefjax.training.step import evaluate, make_evaluation_step, replicate

PARAMETERS = {"w": np.float32([0.5, -1.0, 0.0]), "b": np.float32(0.2)}


def evaluated(count, batch, devices, **more):
    devices = jax.devices("cpu")[:devices]
    step = make_evaluation_step(Line(), devices)
    where = replicate(PARAMETERS, devices)
    return evaluate(step, where, source(batch=batch, held_out=count), batch=batch, devices=devices, **more)


@pytest.mark.parametrize(("count", "batch", "devices"), [(6, 4, 2), (8, 4, 2), (7, 3, 1), (1, 4, 2)])
def test_means_do_not_depend_on_the_batch(count, batch, devices):
    """Of 6 samples in batches of 4, the last is short; each sample counts once."""
    whole = batch_of(held_out_numbers(count))
    x, y = whole.batch["x"].astype(float), whole.batch["y"].astype(float)
    errors = x @ PARAMETERS["w"] + PARAMETERS["b"] - y
    found = evaluated(count, batch, devices)
    assert found["samples"] == count
    assert found["loss"] == pytest.approx((errors**2).mean(), rel=1e-5)
    assert found["absolute"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    names = sorted(set(whole.entries))
    assert list(found["entries"]) == names
    for name in names:
        own = [error**2 for error, entry in zip(errors, whole.entries, strict=True) if entry == name]
        assert found["entries"][name] == pytest.approx(np.mean(own), rel=1e-5)
    assert set(found) == {"loss", "absolute", "samples", "entries"}


def test_an_evaluation_is_given_up_when_asked_to():
    asked = []

    def stopped():
        asked.append(1)
        return len(asked) == 2

    assert evaluated(8, 4, 2, stopped=stopped) is None
    assert len(asked) == 2
