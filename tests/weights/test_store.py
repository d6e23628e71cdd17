import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.models.unet3d import UNet3D, UNet3DConfig
from crefjax.weights import store

CONFIG = UNet3DConfig(depth=1, down_width=2, up_width=2, last_widths=(3,))
ABOUT = {"source": "a test", "license": "none", "training": "none", "expected_input": "any"}


@pytest.fixture
def parameters():
    tree = UNet3D(CONFIG).init(jax.random.key(0), jnp.zeros((1, 4, 4, 4, 1)))["params"]
    return jax.tree.map(np.asarray, tree)


@pytest.fixture
def own(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    monkeypatch.setenv("CREFJAX_WEIGHTS", str(folder))
    monkeypatch.setattr(store, "_SHIPPED", tmp_path / "shipped")
    return folder


def test_saved_weights_are_loaded(parameters, own):
    store.save_weights(own / "mine", parameters, CONFIG, ABOUT)
    for name in ("mine", own / "mine"):
        weights = store.load_weights(name)
        assert weights.name == "mine"
        assert weights.config == CONFIG
        assert weights.card["license"] == "none"
        assert weights.card["parameters"] == sum(a.size for a in jax.tree.leaves(parameters))
        jax.tree.map(np.testing.assert_array_equal, weights.parameters, parameters)


def test_a_card_of_an_earlier_version_is_read(parameters, own):
    store.save_weights(own / "mine", parameters, CONFIG, ABOUT)
    file = own / "mine" / "card.json"
    file.write_text(file.read_text().replace('"license"', '"licence"'))
    assert "licence" in json.loads(file.read_text())
    card = store.load_weights("mine").card
    assert card["license"] == "none"
    assert "licence" not in card


def test_shipped_weights_are_found_before_the_users(parameters, own, tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    store.save_weights(own / "truth", parameters, CONFIG, ABOUT)
    store.save_weights(own / "another", parameters, CONFIG, ABOUT)
    assert store.find_weights("truth") == own / "truth"
    with pytest.raises(UserError, match=r"expected truth in .*shipped, found none; install crefjax again"):
        store.find_weights(None)
    store.save_weights(shipped / "truth", parameters, CONFIG, ABOUT)
    store.save_weights(shipped / "cref", parameters, CONFIG, ABOUT)
    assert store.find_weights("truth") == shipped / "truth"
    store.save_weights(tmp_path / "truth", parameters, CONFIG, ABOUT)
    monkeypatch.chdir(tmp_path)  # whose folder of that name is taken when it is asked for, and only then
    assert store.find_weights(None) == shipped / "truth"
    assert store.find_weights("truth").absolute() == tmp_path / "truth"
    assert list(store.list_weights()) == ["cref", "truth", "another"]


def test_without_any_weights_the_message_says_how_to_get_some(own):
    with pytest.raises(UserError, match=r"known names .none., found unknown"):
        store.load_weights("unknown")


def test_only_a_weights_folder_is_replaced_and_only_with_overwrite(parameters, own, tmp_path):
    store.save_weights(own / "w", parameters, CONFIG, ABOUT)
    with pytest.raises(UserError, match="overwrite"):
        store.save_weights(own / "w", parameters, CONFIG, ABOUT)
    changed = jax.tree.map(lambda a: a + 1, parameters)
    store.save_weights(own / "w", changed, CONFIG, ABOUT, overwrite=True)
    jax.tree.map(np.testing.assert_array_equal, store.load_weights("w").parameters, changed)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.png").write_bytes(b"cat")
    with pytest.raises(UserError, match="something else"):
        store.save_weights(other, parameters, CONFIG, ABOUT, overwrite=True)
    assert (other / "cat.png").read_bytes() == b"cat"
    assert sorted(path.name for path in own.iterdir()) == ["w"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(card_version=99), "card version"),
        (lambda card: card["architecture"].update(down_width=4), "another architecture|other architecture"),
        (lambda card: card["architecture"].update(network="resnet"), "unet3d"),
        (lambda card: card["architecture"].update(color="red"), "architecture"),
        (lambda card: card["architecture"].update(depth=2.5), "whole numbers"),
        (lambda card: card["architecture"].update(last_widths=[4.5]), "whole numbers"),
        (lambda card: card["architecture"].update(negative_slope="steep"), "negative_slope"),
        (lambda card: card.pop("architecture"), "JSON card"),
        (lambda card: card.pop("parameters"), "JSON card"),
        (lambda card: card.pop("license"), "JSON card"),
        (lambda card: card.update(training=None), "JSON card.*training"),
    ],
)
def test_a_card_that_does_not_describe_the_parameters_is_refused(parameters, own, change, message):
    store.save_weights(own / "w", parameters, CONFIG, ABOUT)
    card = json.loads((own / "w" / "card.json").read_text())
    change(card)
    (own / "w" / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=message) as caught:
        store.load_weights("w")
    assert "\n" not in str(caught.value)


def test_damaged_parameters_are_refused(parameters, own):
    store.save_weights(own / "w", parameters, CONFIG, ABOUT)
    for file in (own / "w" / "parameters").rglob("*"):
        if file.is_file() and file.stat().st_size > 50:
            file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match="cannot be read") as caught:
        store.load_weights("w")
    assert "\n" not in str(caught.value)
    bad = jax.tree.map(lambda a: a * np.float32("nan"), parameters)
    store.save_weights(own / "nan", bad, CONFIG, ABOUT)
    with pytest.raises(UserError, match="finite"):
        store.load_weights("nan")


def test_a_card_without_its_texts_is_refused(parameters, own):
    with pytest.raises(ValueError, match="license"):
        store.save_weights(own / "w", parameters, CONFIG, {**ABOUT, "license": ""})
