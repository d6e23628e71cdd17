"""Where batches come from: each gives what the loop needs, goes on where it was, and says what is missing."""

import dataclasses
import itertools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toy_task import Line, config, exported, rows
from helpers.training_run import write_entry, write_map, write_run

from crefjax.errors import UserError
from crefjax.simulate.atoms import write_model
from crefjax.simulate.phantom import phantom
from crefjax.simulate.stream import StreamConfig
from crefjax.simulate.stream.batches import stream_half_maps
from crefjax.training import processes
from crefjax.training.config import split_commas
from crefjax.training.loop import train
from crefjax.training.sources import make_source
from crefjax.training.stream_source import make_standardizer, stream_models

STREAM = {
    "data__source": "stream",
    "data__patch": 16,
    "data__stream__phantoms": 1,
    "data__stream__held_out_phantoms": 1,
    "data__stream__held_out_samples": 3,
    "data__stream__voxel_size": (1.5, 1.5),
    "data__stream__resolution": (2.5, 4.0),
    "batch": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("sources"))


def dataset(folder, **fields):
    return make_source(config(data__dataset__folder=str(folder / "dataset"), **({"batch": 2} | fields)))


def entries(folder, **fields):
    fields = {"data__source": "entries", "data__patch": 16, "batch": 2, "data__entries__held_out": 0.4} | fields
    return make_source(config(data__entries__folders=f"{folder / 'entries/e0'}, {folder / 'entries/e1'}", **fields))


def taken(position, count):
    return [jax.tree.map(np.asarray, samples.batch) | {"entries": samples.entries} for samples in take(position, count)]


def take(position, count):
    return itertools.islice(position, count)


def same(batches, others):
    assert len(batches) == len(others)
    for first, second in zip(batches, others, strict=True):
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("make", [dataset, entries])
def test_a_source_of_half_maps(folder, make):
    source = make(folder)
    assert (source.patch, source.truth) == (16, True)
    position = source.training()
    first = taken(position, 7)
    for batch in first:
        assert set(batch) == {"half_map_1", "half_map_2", "truth", "entries"}
        assert {batch[name].shape for name in batch if name != "entries"} == {(2, 16, 16, 16)}
        assert set(batch["entries"]) <= {"e0", "e1", "e2"}
    state = position.get_state()
    rest = taken(position, 3)
    again = make(folder).training()
    again.set_state(state)
    same(taken(again, 3), rest)
    same(taken(make(folder).training(), 7), first)
    held = taken(source.held_out(), 99)
    same(taken(source.held_out(), 99), held)
    assert all(len(batch["entries"]) == 2 for batch in held[:-1])


def test_no_held_out_entry_is_trained_on(folder):
    source = dataset(folder)
    assert source.size == 6
    held = [name for batch in taken(source.held_out(), 99) for name in batch["entries"]]
    trained = [name for batch in taken(source.training(), 12) for name in batch["entries"]]
    assert len(held) == 3
    assert len(set(held)) == 1
    assert len(set(trained)) == 2
    assert not set(held) & set(trained)
    # each patch once an epoch
    epoch = [batch[name][k].tobytes() for batch in taken(source.training(), 3) for name in ("truth",) for k in range(2)]
    assert len(set(epoch)) == 6


def test_given_held_out_specimens_are_evaluated(folder):
    from crefjax.data.specimen_batches import load_entry, split_off
    from crefjax.training.sources import specimen_source

    rest, apart = split_off(load_entry(folder / "entries" / "e0"), 0.5)
    c = config(batch=2, data__patch=16, data__entries__held_out_patches=3, data__entries__rotations=False)
    source = specimen_source([rest], c, held_out_specimens=[apart])
    batches = taken(source.held_out(), 99)
    assert [len(batch["half_map_1"]) for batch in batches] == [2, 1]
    for batch in batches:
        for half_map in batch["half_map_1"]:
            inside = half_map[half_map != 0]
            assert inside.size
            assert np.isin(inside, apart.half_map_1).all()
            assert not np.isin(inside, rest.half_map_1).any()


def test_a_source_without_held_out_samples_has_no_evaluation(folder):
    assert entries(folder, data__entries__held_out=0.0).held_out is None
    assert make_source(config(**STREAM | {"data__stream__held_out_phantoms": 0})).held_out is None


def test_held_out_patches_may_be_larger_and_are_standardized_as_whole_maps():
    fields = STREAM | {"data__stream__gain": (2.0, 2.0), "data__stream__level": (0.0, 0.0), "data__stream__masked": 0.0}
    source = make_source(config(**fields | {"data__stream__held_out_patch": 24}))
    for batch in taken(source.held_out(), 99):
        full = (batch["half_map_1"].astype(np.float64) + batch["half_map_2"]) / 2
        assert full.shape[1:] == (24, 24, 24)
        np.testing.assert_allclose(full.mean((1, 2, 3)), 0, atol=1e-4)
        np.testing.assert_allclose(full.std((1, 2, 3)), 1, rtol=1e-4)
    trained = taken(source.training(), 1)[0]
    full = (trained["half_map_1"].astype(np.float64) + trained["half_map_2"]) / 2
    assert full.shape == (2, 16, 16, 16)
    np.testing.assert_allclose(full.std((1, 2, 3)), 2, rtol=1e-4)


class Gain(Line):
    """Two numbers that bring one half-map near to the other: a minimal task on maps."""

    name = "gain"

    def init(self, key):
        return {"gain": jnp.zeros(()), "offset": jnp.zeros(())}

    def loss(self, parameters, batch, key):
        error = parameters["gain"] * batch["half_map_1"] + parameters["offset"] - batch["half_map_2"]
        return jnp.square(error).mean((1, 2, 3)), {}


def slowly_prepared(model, c):
    """The first batch of the simulator itself, standardized by the full map and masked, in float64."""
    fields = [name for name in StreamConfig.__dataclass_fields__ if name in c.data.stream]
    stream_config = StreamConfig(**{name: c.data.stream[name] for name in fields})
    batch = next(stream_half_maps([model], patch=c.data.patch, batch=c.batch, seed=c.seed, config=stream_config))
    first, second, truth, mask = (
        np.asarray(array, np.float64) for array in (batch.half_map_1, batch.half_map_2, batch.truth, batch.mask)
    )
    assert all(0 < sample.mean() < 1 for sample in mask)
    expected = {"half_map_1": [], "half_map_2": [], "truth": []}
    for k in range(c.batch):
        full = (first[k] + second[k]) / 2
        deviation = np.sqrt(np.mean((full - full.mean()) ** 2))
        expected["half_map_1"].append((first[k] - full.mean()) / deviation * mask[k])
        expected["half_map_2"].append((second[k] - full.mean()) / deviation * mask[k])
        expected["truth"].append(truth[k] / deviation * mask[k])
    return expected


def test_masks_and_gains_are_drawn_for_each_sample():
    """A mask for some, none for others; gains between the two that are given, evenly in their logarithm."""
    random = np.random.default_rng(5)
    maps = (random.standard_normal((3, 200, 4, 4, 4)) + 0.5).astype(np.float32)
    mask = np.full((200, 4, 4, 4), 0.5, np.float32)
    mask[:, 0] = 0
    prepare = make_standardizer(0.3, (1.0, 1.6))
    found = {name: np.asarray(array) for name, array in prepare(*maps, mask, np.arange(200), np.uint32(3)).items()}
    full = (maps[0] + maps[1]).astype(np.float64) / 2
    mean, deviation = full.mean((1, 2, 3), keepdims=True), full.std((1, 2, 3), keepdims=True)
    gain = (found["truth"] * deviation / np.where(mask, maps[2] * mask, 1))[:, 1:].mean((1, 2, 3), keepdims=True)
    assert ((gain > 0.999) & (gain < 1.601)).all()
    assert abs(np.log(gain).mean() / np.log(1.6) - 0.5) < 4 * np.sqrt(1 / 12 / 200)
    masked = (found["half_map_1"][:, 0] == 0).all((1, 2))
    assert abs(masked.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 200)
    window = np.where(masked[:, None, None, None], mask, 1)
    for name, half_map in zip(("half_map_1", "half_map_2"), maps[:2], strict=True):
        np.testing.assert_allclose(found[name], (half_map - mean) / deviation * gain * window, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["truth"], maps[2] / deviation * gain * mask, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found["mask"], np.where(masked[:, None, None, None], 1, mask))
    # With a level, some of the mean stays, and nothing else changes.
    lifted = make_standardizer(0.3, (1.0, 1.6), (0.2, 0.6))(*maps, mask, np.arange(200), np.uint32(3))
    left = (np.asarray(lifted["half_map_1"]) - found["half_map_1"]) / np.where(window * gain, window * gain, 1)
    share = 1 - left[:, 1].mean((1, 2)) * deviation.ravel() / mean.ravel()
    assert ((share > 0.199) & (share < 0.601)).all()
    assert abs(share.mean() - 0.4) < 4 * 0.4 * np.sqrt(1 / 12 / 200)
    np.testing.assert_array_equal(lifted["truth"], found["truth"])


def test_a_stream_is_standardized_masked_and_resumed(tmp_path):
    """Run as a whole, and stopped by a signal: the same bits."""
    for name in "ab":  # with as many atoms: the simulation is compiled once
        write_model(tmp_path / f"{name}.cif", phantom(40, seed=3), (60.0, 60.0, 60.0))
    models = {
        "data__stream__phantoms": 0,
        "data__stream__held_out_phantoms": 0,
        "data__stream__models": str(tmp_path / "*.cif"),
        "data__stream__held_out": "b",
    }
    c = config(**STREAM | models, epoch_steps=4, epochs=1, checkpoint__every_steps=1)
    whole = make_source(c)
    assert (whole.patch, whole.truth, whole.size) == (16, True, None)
    assert {name for samples in whole.held_out() for name in samples.entries} == {"b.cif"}
    batch = taken(whole.training(), 1)[0]
    assert {array.shape for name, array in batch.items() if name != "entries"} == {(2, 16, 16, 16)}
    assert len(batch["entries"]) == 2
    for name, expected in slowly_prepared(tmp_path / "a.cif", c).items():
        np.testing.assert_allclose(batch[name], expected, rtol=1e-4, atol=1e-4)
    train(c, tmp_path / "whole", Gain(), whole, say=lambda line: None)
    assert [row["samples"] for row in rows(tmp_path / "whole", "evaluation")] == [3]

    interrupted = make_source(c)
    position = interrupted.training()

    class Interrupting:
        get_state, set_state = position.get_state, position.set_state
        count = 0

        def __next__(self):
            self.count += 1
            if self.count == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return next(position)

    result = train(
        c, tmp_path / "stopped", Gain(), dataclasses.replace(interrupted, training=Interrupting), say=lambda line: None
    )
    assert result.step == 2
    train(c, tmp_path / "stopped", Gain(), make_source(c), say=lambda line: None)
    assert exported(tmp_path / "stopped/last")["parameters"] == exported(tmp_path / "whole/last")["parameters"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data__stream__phantoms": 0}, "data.stream: expected models or phantoms to train on, found none"),
        ({"data__stream__models": "nothing/*.cif"}, r"data.stream.models: .*found none for nothing/\*\.cif"),
        (
            {"data__stream__models": "a.cif,b.cif", "data__stream__held_out": "c"},
            "no model is named c; choose from a, b",
        ),
        (
            {"data__stream__models": "a.cif,b.cif", "data__stream__exclude": "c"},
            "no model is named c; choose from a, b",
        ),
    ],
)
def test_mistakes_in_a_stream_are_refused(tmp_path, monkeypatch, fields, message):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.cif").write_text("")
    with pytest.raises(UserError, match=message):
        make_source(config(**STREAM | fields))


def test_a_mistake_in_held_out_data_is_reported_before_the_training():
    with pytest.raises(UserError, match="held-out patches of 97 voxels a side cannot be made"):
        make_source(config(**STREAM, data__stream__held_out_patch=97))


def test_a_stream_is_resumed_with_its_models_in_another_folder_only(tmp_path):
    for name in ("one/a", "one/b", "two/a", "two/b", "three/a", "three/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_model(tmp_path / f"{name}.cif", phantom(40, seed=3), (60.0, 60.0, 60.0))
    position = {
        name: make_source(config(**STREAM | {"data__stream__models": f"{tmp_path / name}/*.cif"})).training()
        for name in ("one", "two", "three")
    }
    next(position["one"])
    state = json.loads(json.dumps(position["one"].get_state()))
    position["two"].set_state(state)
    same(taken(position["two"], 1), taken(position["one"], 1))
    with pytest.raises(UserError, match="found one of others"):
        position["three"].set_state(state)
    del state["models"]  # as earlier versions wrote them
    position["three"].set_state(state)


def test_models_of_a_stream_are_excluded_and_held_out_by_name(tmp_path):
    for name in ("a.cif.gz", "b.cif", "c.pdb", "d.cif"):
        (tmp_path / name).write_text("")
    models = {"data__stream__models": f"{tmp_path}/*.cif*, {tmp_path}/*.pdb"}
    training, held = stream_models(config(**models, data__stream__held_out="b", data__stream__exclude="d"))
    assert [path.name for path in training] == ["a.cif.gz", "c.pdb"]
    assert [path.name for path in held] == ["b.cif"]


def mixed(folder, **fields):
    paths = {"data__entries__folders": f"{folder / 'entries'}/e*", "data__entries__held_out": 0.0}
    return make_source(config(**(STREAM | {"data__stream__entries": 0.4} | paths | fields)))


def test_a_stream_mixed_with_entries_is_resumed(folder):
    source = mixed(folder)
    assert source.description.endswith(" and 1 phantoms, and (40% of the batches) of 3 simulated entries")
    position = source.training()
    first = taken(position, 6)
    state = json.loads(json.dumps(position.get_state()))
    rest = taken(position, 14)
    again = mixed(folder).training()
    again.set_state(state)
    same(taken(again, 14), rest)
    kinds = ["phantom" in batch["entries"][0] for batch in first + rest]
    assert 0.35 < np.mean(kinds) < 0.85  # 12 of 20 are expected, 2.2 the deviation
    assert {name for batch in first + rest for name in batch["entries"]} >= {"phantom 0", "e0", "e1"}
    # The parts come as each would by itself.
    alone = taken(make_source(config(**STREAM)).training(), sum(kinds))
    same([batch for batch, kind in zip(first + rest, kinds, strict=True) if kind], alone)


def test_patches_of_entries_have_the_scale_of_those_of_the_stream(folder):
    """Of deviation 1 times the gain; the noise of each is that of the entry, or its negative."""
    position = mixed(folder, data__stream__gain=(1.0, 1.6)).training()
    found = [batch for batch in taken(position, 24) if batch["entries"][0].startswith("e")]
    alone = {"data__source": "entries", "data__patch": 16, "data__entries__held_out": 0.0, "batch": 2}
    alone = make_source(config(data__entries__folders=f"{folder}/entries/e*", **alone))
    plain = taken(alone.training(), len(found))
    signs = []
    streamed = next(batch for batch in taken(mixed(folder).training(), 24) if not batch["entries"][0].startswith("e"))
    for mixed_batch, other in zip(found, plain, strict=True):
        assert {name: np.shape(value) for name, value in mixed_batch.items()} == {
            name: np.shape(value) for name, value in streamed.items()
        }  # one compiled step takes either
        np.testing.assert_array_equal(mixed_batch["mask"], 1)
        assert mixed_batch["entries"] == other["entries"]
        deviation = ((mixed_batch["half_map_1"] + mixed_batch["half_map_2"]) / 2).std((1, 2, 3))
        assert ((deviation > 0.999) & (deviation < 1.601)).all()
        for k in range(2):
            scale = mixed_batch["truth"][k].std() / other["truth"][k].std()
            np.testing.assert_allclose(mixed_batch["truth"][k], scale * other["truth"][k], rtol=1e-4, atol=1e-5)
            noises = [(a["half_map_1"] - a["truth"])[k] for a in (mixed_batch, other)]
            sign = np.sign(np.sum(noises[0] * noises[1]))
            np.testing.assert_allclose(noises[0], sign * scale * noises[1], rtol=1e-3, atol=1e-4)
            signs.append(sign)
    assert {-1, 1} == set(signs)


def test_each_process_makes_its_part_of_streams_and_entries_alone(folder, monkeypatch):
    """Of batches of 4 samples, two processes make two each; what is drawn ahead is that of the same process."""
    from crefjax.data import specimen_batches
    from crefjax.simulate.stream import batches as stream_batches

    streamed, cut = set(), set()
    draw, get = stream_batches.draw_sample, specimen_batches._Random.__getitem__
    monkeypatch.setattr(stream_batches, "draw_sample", lambda *words: streamed.add(words[-1]) or draw(*words))
    monkeypatch.setattr(specimen_batches._Random, "__getitem__", lambda self, k: cut.add(k) or get(self, k))

    def take_as(index, count):
        streamed.clear()
        cut.clear()
        monkeypatch.setattr(processes, "current", lambda: processes.Processes(index, count))
        position = mixed(folder, batch=4, data__stream__held_out_samples=0).training()
        found = taken(position, 5)
        position.close()
        return found, position.get_state(), set(streamed), set(cut)

    alone, state, _, _ = take_as(0, 1)
    shares = [take_as(index, 2) for index in range(2)]
    of_entries = 4 * sum(batch["entries"][0].startswith("e") for batch in alone)
    assert 0 < of_entries < 20
    for kind, needed in ((2, 20 - of_entries), (3, of_entries)):
        made = [share[kind] for share in shares]
        assert set(range(needed)) <= made[0] | made[1]
        assert {number % 4 for number in made[0]} == {0, 1}
        assert {number % 4 for number in made[1]} == {2, 3}
    for step, batch in enumerate(alone):
        first, second = (share[0][step] for share in shares)
        assert first["entries"] + second["entries"] == batch["entries"]
        for name in ("half_map_1", "half_map_2", "truth", "mask"):
            together = np.concatenate([first[name], second[name]])
            np.testing.assert_allclose(together, batch[name], rtol=1e-6, atol=1e-6)
    assert shares[0][1] == shares[1][1] == state


def test_a_stream_is_mixed_only_with_entries_that_have_a_truth(folder, tmp_path):
    entry = write_entry(tmp_path / "e")
    (entry / "truth.mrc").unlink()
    with pytest.raises(UserError, match=r"data\.stream\.entries: expected entries with a truth\.mrc"):
        make_source(config(**STREAM, data__stream__entries=0.5, data__entries__folders=str(entry)))


def test_models_of_a_pattern_divide_its_share(tmp_path):
    for name in ("a1.cif", "a2.cif", "a3.cif", "b1.pdb", "b2.pdb"):
        (tmp_path / name).write_text("")
    models = f"{tmp_path}/a*.cif, {tmp_path}/*.pdb"
    files, _ = stream_models(
        config(data__stream__models=models, data__stream__shares="3,1", data__stream__exclude="a2")
    )
    assert {path.name: share for path, share in files.items()} == {
        "a1.cif": 1.5,
        "a3.cif": 1.5,
        "b1.pdb": 0.5,
        "b2.pdb": 0.5,
    }
    for shares in ("3", "3,x", "3,0", "1,2,3", "nan,1"):
        with pytest.raises(UserError, match=r"data\.stream\.shares: expected one number above 0 for each"):
            stream_models(config(data__stream__models=models, data__stream__shares=shares))
    twice = f"{models},{models.split(',')[0]}"
    with pytest.raises(UserError, match=r"expected one share for each model, but two patterns match"):
        stream_models(config(data__stream__models=twice, data__stream__shares="3,1,2"))
    assert len(stream_models(config(data__stream__models=twice))[0]) == 5


def test_two_models_of_the_same_name_are_refused(tmp_path):
    for name in ("a.1.cif", "a.2.cif"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"models of different names, found .*a\.1\.cif and .*a\.2\.cif; rename one"):
        stream_models(config(data__stream__models=f"{tmp_path}/*.cif"))
    twice = f"{tmp_path}/a.1.cif, {tmp_path}/a.1.*"
    assert list(stream_models(config(data__stream__models=twice))[0]) == [tmp_path / "a.1.cif"]


def test_mistakes_in_entries_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r"data\.entries\.folders: expected entry folders, found none"):
        make_source(config(data__source="entries"))
    with pytest.raises(UserError, match="nowhere"):
        make_source(config(data__source="entries", data__entries__folders=str(tmp_path / "nowhere")))
    entry = write_entry(tmp_path / "flat")
    write_map(entry / "half_map_2.mrc", np.zeros((16, 16, 48)))
    with pytest.raises(UserError, match="half_map_2"):
        make_source(config(data__source="entries", data__entries__folders=str(entry)))


def test_mistakes_in_a_dataset_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="expected a dataset folder, found no folder"):
        dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="expected at least a batch of 8 patches to train on, found 6; prepare more"):
        dataset(folder, batch=8)


def test_names_are_separated_by_commas():
    assert split_commas(" a,b c ,, d,") == ["a", "b c", "d"]
    assert split_commas("") == []
