"""Settings: what is the default, what may be changed, and how a mistake is told."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.training.config import check_config, check_resumable, default, finetune_config, flat, read_config, to_json

FILE = """
from crefjax.training.config import default


def get_config():
    c = default()
    c.batch = 2
    return c
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(FILE)
    return str(path)


def written(path, line):
    path.write_text(FILE.replace("c.batch = 2", line))
    return str(path)


def test_every_loss_has_a_weight():
    from crefjax.losses import LOSSES

    assert set(default().losses) == set(LOSSES)


def test_the_default_is_the_papers_training():
    c = flat(default())
    expected = {
        "batch": 6,
        "epochs": 195,
        "network.depth": 5,
        "network.last_widths": (16, 8),
        "data.patch": 96,
        "data.dataset.rotations": True,
        "losses.cref_l1": 1.0,
        "optimizer.name": "adam",
        "optimizer.b1": 0.9,
        "optimizer.b2": 0.999,
        "optimizer.eps": 1e-8,
        "schedule.name": "exponential",
        "schedule.rate": 3e-4,
        "schedule.decay": 0.7,
        "schedule.decay_epochs": 10.0,
        "schedule.warmup": 0,
        "average": 0.0,
    }
    assert {name: c[name] for name in expected} == expected
    assert [name for name, factor in c.items() if name.startswith("losses.") and factor] == ["losses.cref_l1"]


def test_fine_tuning_by_a_config_asks_for_weights():
    file = Path(__file__).parents[2] / "experiments/configs/finetune.py"
    with pytest.raises(UserError, match=r"finetune\.py: expected weights to start from, found none; set") as caught:
        read_config(str(file))
    assert "\n" not in str(caught.value)
    c = flat(read_config(str(file), ["--config.weights=mine"]))
    assert c == flat(finetune_config()) | {"weights": "mine"}


def test_fields_are_changed_by_the_file_and_by_the_command_line(file):
    changes = ["--config.schedule.rate=1e-3", "--config.network.last_widths=(4,)", "--config.data.source", "stream"]
    changes += ["--config.data.dataset.rotations=false", "--config.data.stream.gain=(1.0, 1.5)"]
    c = read_config(file, changes)
    assert (c.batch, c.schedule.rate, c.network.last_widths, c.data.source) == (2, 1e-3, (4,), "stream")
    assert (c.data.dataset.rotations, c.data.stream.gain) == (False, (1.0, 1.5))
    untouched = flat(default())
    changed = {name for name, value in flat(c).items() if value != untouched[name]}
    assert changed == {
        "batch",
        "schedule.rate",
        "network.last_widths",
        "data.source",
        "data.dataset.rotations",
        "data.stream.gain",
    }


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (["--config.bach=3"], ["bach", "batch"]),
        (["--config.optimizer.momentum=3"], ["momentum"]),
        (["--config.batch=many"], ["batch", "many"]),
        (["--config.batch=2.5"], ["batch", "2.5"]),
        (["--config.batch=None"], ["batch", "None"]),
        (["--config.data.dataset.rotations=perhaps"], ["rotations", "perhaps"]),
        (["--config.network.last_widths=(4,'a')"], ["last_widths"]),
        (["--confg.batch=3"], ["confg.batch"]),
        (["batch=3"], ["batch=3", "--config.FIELD=VALUE"]),
        (["--config.batch=0"], ["batch", "at least 1", "found 0"]),
        (["--config.data.source=disk"], ["data.source", "dataset, stream, entries", "disk"]),
        (["--config.schedule.name=linear"], ["schedule.name", "exponential, cosine, cycles, constant", "linear"]),
        (["--config.network.compute_dtype=float16"], ["network.compute_dtype", "bfloat16", "float16"]),
        (["--config.schedule.rate=nan"], ["schedule.rate", "finite"]),
        (["--config.schedule.rate=-1.0"], ["schedule.rate", "at least 0", "-1"]),
        (["--config.average=1.0"], ["average", "at most 0.999999"]),
        (["--config.optimizer.b2=1.0"], ["optimizer.b2", "at most"]),
        (["--config.data.stream.resolution=(5.0,2.0)"], ["data.stream.resolution", "(5.0, 2.0)"]),
        (["--config.data.stream.gain=(0.0,1.0)"], ["data.stream.gain", "at least 0.001"]),
        (["--config.schedule.decay=0.0"], ["schedule.decay", "found 0"]),
        (["--config.data.stream.resolution=(5.0,)"], ["data.stream.resolution", "(5.0,)"]),
        (["--config.data.entries.held_out=0.7"], ["data.entries.held_out", "at most 0.5"]),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(file, change, names):
    assert_refused(names, lambda: read_config(file, change))


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("c.bach = 2", ["tiny.py", "bach", "batch"]),
        ("c.batch = 'two'", ["tiny.py", "batch"]),
        ("c.batch = 2.5", ["tiny.py", "batch"]),
        ("c.batch = None", ["tiny.py", "batch", "None"]),
        ("c.network = 3", ["tiny.py", "network"]),
        ("c.network.last_widths = 4", ["tiny.py", "last_widths"]),
        ("c.data.stream.gain = (True, True)", ["tiny.py", "gain"]),
        ("raise RuntimeError('out of\\n cheese')", ["tiny.py", "RuntimeError", "out of cheese"]),
        ("c = 3 +", ["tiny.py", "SyntaxError"]),
        ("import nothing_of_that_name", ["tiny.py", "nothing_of_that_name"]),
        ("c = 5", ["tiny.py", "ConfigDict", "int"]),
        ("c = ConfigDict()", ["tiny.py"]),
        ("c.unlock(); c.more = 3", ["tiny.py", "there is no field more"]),
        ("c.unlock(); del c.batch", ["tiny.py", "batch is missing"]),
    ],
)
def test_a_mistake_in_a_file_is_one_line(tmp_path, line, names):
    path = tmp_path / "tiny.py"
    assert_refused(names, lambda: read_config(written(path, line)))


def assert_refused(names, call):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    assert len(message) < 400, message
    for name in names:
        assert name in message, message


def test_a_file_that_is_missing_or_returns_no_config_is_refused(tmp_path):
    assert_refused(["nothing.py", "no such file"], lambda: read_config(str(tmp_path / "nothing.py")))
    assert_refused([tmp_path.name], lambda: read_config(str(tmp_path)))
    (tmp_path / "empty.py").write_text("")
    assert_refused(
        ["empty.py", "expected a function get_config(), found none"], lambda: read_config(str(tmp_path / "empty.py"))
    )


def test_objects_that_are_not_a_config_are_refused():
    assert_refused(["here", "ConfigDict", "dict"], lambda: check_config({"batch": 3}, "here"))
    assert_refused(["here", "missing"], lambda: check_config(ConfigDict({"batch": 3}), "here"))


def test_a_run_is_resumed_only_with_its_own_settings():
    before = to_json(default())
    check_resumable(before, default(), "run")
    c = default()
    c.epochs, c.steps, c.minutes, c.devices, c.platform, c.log_every = 3, 7, 1.0, 1, "cpu", 5
    c.evaluation.patience, c.checkpoint.keep = 3, 1
    c.data.stream.models = "elsewhere/*.cif"
    check_resumable(before, c, "run")
    c.schedule.rate, c.batch = 1e-3, 12
    names = ["run", "batch = 6, found 12", "schedule.rate", "another folder"]
    assert_refused(names, lambda: check_resumable(before, c, "run"))
    c = default()
    c.network.last_widths = (4, 4)
    assert_refused(["network.last_widths = [16, 8], found [4, 4]"], lambda: check_resumable(before, c, "run"))


def test_a_run_of_an_earlier_version_is_resumed_with_renamed_fields():
    before = to_json(default())
    before["data.stream.centre"] = before.pop("data.stream.center")
    check_resumable(before, default(), "run")
    before["data.stream.centre"] = 0.9
    assert_refused(["data.stream.center = 0.9, found 0.2"], lambda: check_resumable(before, default(), "run"))


def test_the_grid_may_change_on_resuming_for_the_stream_alone():
    """The stream makes its maps on the grid; a dataset or entries are brought to it, and would be others."""
    for source, entries, may in (("stream", 0.0, True), ("stream", 0.1, False), ("entries", 0.0, False)):
        config = default().unlock()
        config.data.source, config.data.stream.entries, config.data.grid = source, entries, 3.0
        before = to_json(config)
        config.data.grid = 3.3
        if may:
            check_resumable(before, config, "here")
        else:
            with pytest.raises(UserError, match=r"data\.grid = 3\.0, found 3\.3"):
                check_resumable(before, config, "here")


def test_a_run_without_a_newer_field_is_resumed_with_its_default():
    before = to_json(default())
    del before["losses.gain_l1"]
    check_resumable(before, default(), "run")
    c = default()
    c.losses.gain_l1 = 0.3
    assert_refused(["run", "losses.gain_l1 = 0.0, found 0.3"], lambda: check_resumable(before, c, "run"))
