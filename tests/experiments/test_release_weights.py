"""A finished run is released as included weights, with a card and the checkpoint that continues it."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.training_run import ended, write_run

from crefjax.weights.store import load_weights
from experiments import release_weights, simulate_training_entries


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a tiny dataset, whose config names models of a stream: only their names are read."""
    folder = write_run(tmp_path_factory.mktemp("run"))
    status, output = ended(folder, "run")
    assert status == 0, output
    (folder / "models").mkdir()
    for name in ("1abc.cif.gz", "2ABC_target.pdb.gz", "3abc.cif.gz", "4abc.cif.gz"):
        (folder / "models" / name).write_bytes(b"")
    config = json.loads((folder / "run/config.json").read_text())
    card = json.loads((folder / "run/last/card.json").read_text())
    (folder / "run/last/card.json").write_text(json.dumps(card | {"losses": {"truth_fsc": 1.0, "truth_l2": 0.3}}))
    config |= {
        "data.stream.models": f"{folder}/models/*", "data.stream.exclude": "3abc", "data.stream.held_out": "4abc",
    }  # fmt: skip
    (folder / "run/config.json").write_text(json.dumps(config))
    return folder / "run"


@pytest.mark.slow
def test_release_writes_weights_card_and_checkpoint(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(release_weights, "ROOT", tmp_path)
    (tmp_path / "crefjax/weights").mkdir(parents=True)
    assert release_weights.main([str(run), "truth"]) == 0
    shipped, last = load_weights(tmp_path / "crefjax/weights/shipped/truth"), load_weights(run / "last")
    jax.tree.map(np.testing.assert_array_equal, shipped.parameters, last.parameters)
    assert shipped.card["models"] == "PDB entries (CC0) 1ABC, 2ABC"
    assert shipped.card["models_for_choosing"] == "PDB entries (CC0) 4ABC"
    assert shipped.card["never_seen"] == "PDB entries 3ABC"
    assert shipped.card["license"].startswith("Apache-2.0")
    assert shipped.card["training"] == last.card["training"]
    newest = max((run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    state = tmp_path / "experiments/checkpoints/truth"
    assert [path.name for path in state.iterdir()] == [newest.name]
    assert {path.name for path in (state / newest.name).iterdir()} == {path.name for path in newest.iterdir()}
    assert release_weights.main([str(run), "truth"]) == 0  # replaces the first release
    assert not [file for file in tmp_path.rglob("commit_success.txt") if "/" in file.read_text()]
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(json.dumps(json.loads(config) | {"weights": "truth"}))
    path = tmp_path / "crefjax/weights/shipped/truth/card.json"
    older = {"models": "PDB entries (CC0) 2ABC, 9ABC", "never_seen": "PDB entries 1ABC, 8ABC"}
    path.write_text(json.dumps(json.loads(path.read_text()) | older))
    assert release_weights.main([str(run), "truth"]) == 0  # a run that started from the weights that it replaces
    shipped = load_weights(tmp_path / "crefjax/weights/shipped/truth")
    assert (
        shipped.card["models"] == "PDB entries (CC0) 1ABC, 2ABC, 9ABC"
    )  # the models that those were trained on count too
    assert shipped.card["never_seen"] == "PDB entries 3ABC, 8ABC"
    (run / "config.json").write_text(config)
    before = sorted(tmp_path.rglob("*"))

    def refused(file, change, message, name="truth"):
        text = (run / file).read_text()
        (run / file).write_text(change(text))
        try:
            capsys.readouterr()
            assert release_weights.main([str(run), name]) == 2
            assert message in capsys.readouterr().err
        finally:
            (run / file).write_text(text)

    def changed(**fields):
        return lambda text: json.dumps(json.loads(text) | fields)

    cycles = {"schedule.name": "cycles", "schedule.cycle_steps": 5000}
    refused("config.json", changed(**cycles), "expected the end of a cycle of 5000 steps")
    refused("config.json", changed(weights="cref"), "found one from cref")
    refused("config.json", changed(weights="/elsewhere/truth"), "by a relative path, found /elsewhere/truth")
    refused("config.json", changed(**{"optimizer.momentum": 0.9}), "expected the config of a run")
    refused("config.json", lambda text: text[:30], "expected the config of a run")
    refused("last/card.json", changed(step=1), "of the same step, found 1")
    refused("last/card.json", lambda text: text, "expected a run with the losses {'cref_l1': 0.5", name="cref")
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_that_is_not_a_run_is_refused(tmp_path, capsys):
    assert release_weights.main([str(tmp_path), "truth"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_training_entries_are_simulated_once_and_only_from_models_for_training(tmp_path, monkeypatch):
    from crefjax.training.config import read_config

    calls = []
    monkeypatch.setattr("crefjax.cli.main.main", lambda argv: calls.append(argv) or 0)
    (tmp_path / "out" / "9n5j").mkdir(parents=True)
    assert simulate_training_entries.main([str(tmp_path), "-o", str(tmp_path / "out")]) == 0
    assert len(calls) == len(simulate_training_entries.ENTRIES) - 1
    assert {argv[0] for argv in calls} == {"simulate"}
    stream = read_config(str(Path(simulate_training_entries.__file__).parent / "configs" / "weights.py")).data.stream
    reserved = {name.strip() for name in f"{stream.exclude},{stream.held_out}".split(",")}
    assert not reserved & {name.split("/")[1].split(".")[0] for name in simulate_training_entries.ENTRIES}
    monkeypatch.setattr("crefjax.cli.main.main", lambda argv: 2)
    assert simulate_training_entries.main([str(tmp_path), "-o", str(tmp_path / "other")]) == 2
