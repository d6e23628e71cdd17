"""Checkpoints: what is in them, which are kept, and what is said of those that cannot be used."""

import asyncio
import gc
import logging
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from crefjax.errors import UserError
from crefjax.training import checkpoints as room
from crefjax.training.checkpoints import CheckpointMetadata, Checkpoints
from crefjax.training.step import State, init_state


def state(seed=0, width=3, *, average=True, optimizer=None):
    """A state of host arrays, every number its own."""
    random = np.random.default_rng(seed)
    parameters = {"a": {"kernel": jnp.zeros((2, width)), "bias": jnp.zeros(width)}}
    state = init_state(parameters, optimizer or optax.adam(1e-3), average=average)
    return jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(leaf.dtype), state)


def saved(**run):
    return CheckpointMetadata(
        {"next_batch": 3, "of": "abc"}, {"seconds": 1.5, "best": [0.25, 2], **run}, {"batch": 4, "x": [1, 2]}
    )


@pytest.fixture
def store(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    yield checkpoints
    checkpoints.close()


def test_a_saved_state_is_restored_to_the_last_bit(store, tmp_path):
    first = state(1)
    store.save(7, first, saved())
    store.close()
    again = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert again.steps() == [7]
    assert again.metadata(7) == saved()
    found = again.restore(7, state(2))
    again.close()
    assert jax.tree.structure(found) == jax.tree.structure(first)
    for array, other in zip(jax.tree.leaves(found), jax.tree.leaves(first), strict=True):
        assert array.dtype == other.dtype
        assert np.array_equal(array, other)


def test_a_state_without_average_and_another_optimizer(store):
    first = state(1, average=False, optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)))
    store.save(1, first, saved())
    like = state(2, average=False, optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)))
    found = store.restore(1, like)
    assert found.average is None
    assert np.array_equal(found.parameters["a"]["bias"], first.parameters["a"]["bias"])


def test_the_newest_and_the_best_checkpoints_are_kept(store):
    for step, loss in enumerate([0.9, 0.2, 0.7, None, 0.8, 0.3, None], 1):
        store.save(step, state(step), saved(), loss)
    assert store.steps() == [2, 6, 7]
    store.save(8, state(8), saved(), 0.1)
    store.save(9, state(9), saved())
    store.save(10, state(10), saved())
    assert store.steps() == [8, 9, 10]
    assert np.array_equal(store.restore(8, state()).parameters["a"]["kernel"], state(8).parameters["a"]["kernel"])


def test_the_best_checkpoint_is_known_after_a_restart(store, tmp_path):
    for step, loss in enumerate([0.2, 0.9, 0.8], 1):
        store.save(step, state(step), saved(), loss)
    store.close()
    again = Checkpoints(tmp_path / "checkpoints", keep=1)
    again.save(4, state(4), saved(), 0.5)
    again.save(5, state(5), saved())
    assert again.steps() == [1, 5]
    again.close()


def test_a_step_is_saved_once(store):
    store.save(3, state(1), saved())
    store.save(3, state(2), saved())
    assert np.array_equal(store.restore(3, state()).parameters["a"]["bias"], state(1).parameters["a"]["bias"])


@pytest.mark.parametrize(
    ("like", "names"),
    [
        (lambda: state(width=4), ["['a']['bias']", "(4,)", "(3,)"]),
        (lambda: state(optimizer=optax.sgd(0.1)), ["none", "architecture or optimizer"]),
        (lambda: state(average=False), ["average", "none"]),
    ],
)
def test_a_state_of_other_arrays_is_refused(store, like, names):
    store.save(5, state(), saved())
    with pytest.raises(UserError) as caught:
        store.restore(5, like())
    message = str(caught.value)
    assert "\n" not in message
    assert f"{store.folder / '5'}: expected the array " in message
    for name in names:
        assert name in message, message


def test_another_version_is_refused(store, monkeypatch):
    monkeypatch.setattr(room, "VERSION", 7)
    store.save(5, state(), saved())
    monkeypatch.undo()
    with pytest.raises(UserError, match="expected checkpoints of version 1, found 7; start a new run"):
        store.metadata(5)


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from threads of Orbax
def test_any_damage_is_reported_in_one_line_and_nothing_is_invented(tmp_path):
    """Every file of a checkpoint is taken away, emptied or cut in half; what can be read all the same is right."""
    checkpoints = Checkpoints(tmp_path / "whole", keep=2)
    checkpoints.save(5, state(1), saved(), 0.5)
    checkpoints.close()
    refused = 0
    for number, file in enumerate(files_of(tmp_path / "whole")):
        for how in ("gone", "empty", "half"):
            folder = tmp_path / f"{number}_{how}"
            shutil.copytree(tmp_path / "whole", folder)
            raw = (folder / file).read_bytes()
            if how == "gone":
                (folder / file).unlink()
            else:
                (folder / file).write_bytes(raw[: len(raw) // 2] if how == "half" else b"")
            try:
                refused += reads_right(folder) is False
            except UserError as error:
                message = str(error)
                assert "\n" not in message, (file, how, message)
                assert str(folder) in message, (file, how, message)
                refused += 1
    assert refused >= 8


def reads_right(folder):
    """False if there is no checkpoint any more; UserError where it is told as damaged."""
    again = Checkpoints(folder, keep=2)
    try:
        if not again.steps():
            return False
        assert again.metadata(5) == saved()
        found = again.restore(5, state(2))
        assert np.array_equal(found.parameters["a"]["kernel"], state(1).parameters["a"]["kernel"])
        return True
    finally:
        again.close()


def test_a_partly_removed_checkpoint_is_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    checkpoints.save(1, state(1), saved(), 0.5)
    shutil.copytree(tmp_path / "checkpoints" / "1", tmp_path / "one")
    checkpoints.save(2, state(2), saved(), 0.4)
    checkpoints.close()
    files = files_of(tmp_path / "one")
    for file in files[: len(files) // 2]:
        (tmp_path / "one" / file).unlink()
    (tmp_path / "one").rename(tmp_path / "checkpoints" / "1")
    (tmp_path / "checkpoints" / "0").mkdir()
    again = Checkpoints(tmp_path / "checkpoints", keep=1)
    assert again.steps()[-1] == 2
    assert np.array_equal(again.restore(2, state()).parameters["a"]["bias"], state(2).parameters["a"]["bias"])
    again.save(3, state(3), saved(), 0.3)
    assert again.steps() == [3]
    again.close()


def test_a_full_disk_leaves_earlier_checkpoints_intact(store, tmp_path, monkeypatch):
    store.save(1, state(1), saved())

    def full(*arguments, **words):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store._manager, "save", full)
        with pytest.raises(
            UserError, match=r"step 2 cannot be written \(No space left on device\); make room"
        ) as caught:
            store.save(2, state(2), saved())
    assert "\n" not in str(caught.value)
    assert store.steps() == [1]
    store.save(2, state(2), saved())
    assert store.steps() == [1, 2]


@pytest.mark.parametrize("collected", ["at once", "late"])
def test_further_errors_of_a_failed_save_stay_quiet(store, monkeypatch, caplog, collected):
    """The arrays that fail after the first one, whose errors nobody asks for."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(logging.getLogger("asyncio"), "filters", [])
    others = []

    async def fail(text):
        raise OSError(28, text)

    async def write_all():
        others.append(asyncio.ensure_future(fail("No space left for the second array")))
        await asyncio.sleep(0)
        await fail("No space left on device")

    def full(*arguments, **words):
        try:
            asyncio.run(write_all())
        finally:
            if collected == "at once":
                others.clear()

    monkeypatch.setattr(store._manager, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        store.save(2, state(2), saved())
    others.clear()
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_the_state_of_a_run_has_the_fields_that_a_checkpoint_names():
    assert State._fields == ("step", "parameters", "optimizer", "average")
