"""A network and a task of a module outside the package, by their dotted name."""

import pytest

from crefjax.errors import UserError
from crefjax.models import load_model
from crefjax.training.config import check_config, default
from crefjax.training.task import make_task


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Return a function that writes a module of a package of one's own."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_package").mkdir()

    def write(name, text):
        (tmp_path / "own_package" / f"{name}.py").write_text(text)
        return f"own_package.{name}"

    return write


def test_a_module_gives_network_task_and_settings(own_module):
    network = own_module(
        "network",
        "from crefjax.models.unet2d_config import MODEL as OTHER\nimport dataclasses\n"
        "MODEL = dataclasses.replace(OTHER, dimensions=2)\n",
    )
    task = own_module(
        "task", "SETTINGS = {'weight': 2.0}\ndef make_task(config):\n    return config.settings.weight, 5\n"
    )
    assert load_model(network).dimensions == 2
    config = default(network="unet2d", task=task)
    assert config.settings.to_dict() == {"weight": 2.0}
    config.settings.weight = 3.0
    check_config(config)
    assert make_task(config) == (3.0, 5)


def test_settings_are_checked_as_other_fields(own_module):
    task = own_module("checked", "SETTINGS = {'weight': 2.0}\ndef make_task(config):\n    return None\n")
    config = default(task=task)
    config.settings.weight = -1.0
    with pytest.raises(UserError, match=r"expected settings\.weight to be at least 0, found -1"):
        check_config(config)
    with config.unlocked():
        config.settings.other = 1
    with pytest.raises(UserError, match=r"there is no field settings\.other"):
        check_config(config)


@pytest.mark.parametrize("name", ["own_package.missing", "missing_package.module", "os.path", "../own", "unet4d"])
def test_what_is_not_a_module_with_a_network_or_a_task_is_refused(own_module, name):
    with pytest.raises(ValueError, match=r"expected a network of unet3d, .*unet3d, or a module .* found"):
        load_model(name)
    config = default()
    config.task = name
    with pytest.raises(UserError, match=r"config: task: expected one of denoising, .* found"):
        make_task(config)


def test_a_module_that_lacks_something_else_says_so(own_module):
    name = own_module("broken", "import a_package_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        load_model(name)
