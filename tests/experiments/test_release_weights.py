"""A run becomes weights of the package, with a card, and the state from which it goes on."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.training_run import ended, write_run

from crefjax.weights.store import load_weights
from experiments import release_weights, simulate_training_entries


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick):
    """A run on a tiny dataset, whose config says that it is of the stream: only names are read from there."""
    folder = write_run(tmp_path_factory.mktemp("run"))
    status, said = ended(folder, "run", environment=quick)
    assert status == 0, said
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


def test_weights_card_and_state(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(release_weights, "ROOT", tmp_path)
    (tmp_path / "crefjax/weights").mkdir(parents=True)
    assert release_weights.main([str(run), "truth"]) == 0
    shipped, last = load_weights(tmp_path / "crefjax/weights/shipped/truth"), load_weights(run / "last")
    jax.tree.map(np.testing.assert_array_equal, shipped.parameters, last.parameters)
    assert shipped.card["models"] == "PDB entries (CC0) 1ABC, 2ABC"
    assert shipped.card["models_for_choosing"] == "PDB entries (CC0) 4ABC"
    assert shipped.card["never_seen"] == "PDB entries 3ABC"
    assert shipped.card["licence"].startswith("Apache-2.0")
    assert shipped.card["training"] == last.card["training"]
    newest = max((run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    state = tmp_path / "experiments/checkpoints/truth"
    assert [path.name for path in state.iterdir()] == [newest.name]
    assert {path.name for path in (state / newest.name).iterdir()} == {path.name for path in newest.iterdir()}
    assert release_weights.main([str(run), "truth"]) == 0  # again, in their place
    assert not [file for file in tmp_path.rglob("commit_success.txt") if "/" in file.read_text()]
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(json.dumps(json.loads(config) | {"weights": "truth"}))
    path = tmp_path / "crefjax/weights/shipped/truth/card.json"
    older = {"models": "PDB entries (CC0) 2ABC, 9ABC", "never_seen": "PDB entries 1ABC, 8ABC"}
    path.write_text(json.dumps(json.loads(path.read_text()) | older))
    assert release_weights.main([str(run), "truth"]) == 0  # a run that went on from those that it replaces
    shipped = load_weights(tmp_path / "crefjax/weights/shipped/truth")
    assert shipped.card["models"] == "PDB entries (CC0) 1ABC, 2ABC, 9ABC"  # what those had seen was seen
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
    refused("config.json", changed(**{"optimizer.momentum": 0.9}), "expected the config of a run")
    refused("config.json", lambda text: text[:30], "expected the config of a run")
    refused("last/card.json", changed(step=1), "of the same step, found 1")
    refused("last/card.json", lambda text: text, "expected a run by {'cref_l1': 0.5", name="cref")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert release_weights.main([str(tmp_path), "truth"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_entries_are_made_once_and_of_models_that_may_be_trained_on(tmp_path, monkeypatch):
    from crefjax.training.config import read_config

    asked = []
    monkeypatch.setattr("crefjax.cli.main.main", lambda argv: asked.append(argv) or 0)
    (tmp_path / "out" / "9n5j").mkdir(parents=True)
    assert simulate_training_entries.main([str(tmp_path), "-o", str(tmp_path / "out")]) == 0
    assert len(asked) == len(simulate_training_entries.ENTRIES) - 1
    assert {argv[0] for argv in asked} == {"simulate"}
    stream = read_config(str(Path(simulate_training_entries.__file__).parent / "configs" / "weights.py")).data.stream
    kept_out = {one.strip() for one in f"{stream.exclude},{stream.held_out}".split(",")}
    assert not kept_out & {name.split("/")[1].split(".")[0] for name in simulate_training_entries.ENTRIES}
    monkeypatch.setattr("crefjax.cli.main.main", lambda argv: 2)
    assert simulate_training_entries.main([str(tmp_path), "-o", str(tmp_path / "other")]) == 2
