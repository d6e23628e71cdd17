"""What a map may be used for follows from its warnings."""

import numpy as np
import pytest
from helpers import denoised_pairs as made

from crefjax.report.measure import account
from crefjax.report.warnings import use_of


def test_a_map_without_warnings_is_for_looking_and_building():
    use = use_of([], None)
    assert [one.split()[0] for one in use["for"]] == ["Looking", "Building"]
    assert [one.split()[0] for one in use["not_for"]] == ["Resolution:", "Refining", "Claiming"]


def test_noise_is_for_nothing():
    (only,) = use_of(["no_signal", "added", "shifted"], 5.0)["for"]
    assert only.startswith("Nothing:")


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("unrelated", "from these half-maps"),
        ("inverted", "invert the denoised map"),
        ("shifted", "shift the denoised map back"),
        ("swapped", "in the order of the half-maps"),
        ("one_map", "denoise each half-map for itself"),
        ("contradicted", "share no noise"),
        ("not_denoised", "give the map that was denoised"),
        ("nothing_removed", "what the noisy map is"),
    ],
)
def test_what_must_be_put_right_comes_first(kind, step):
    use = use_of(["cut", kind, "added"], 5.0)
    assert len(use["for"]) == 1
    assert use["for"][0].startswith("Nothing, until this is put right:")
    assert step in use["for"][0]
    assert use["not_for"][0].startswith("Anything else")


def test_two_things_to_put_right_are_both_told():
    (only,) = use_of(["swapped", "inverted"], None)["for"]
    assert only.index("invert the") < only.index("in the order")


def test_doubts_are_limits():
    assert "independent" in use_of(["never_falls"], None)["not_for"][-1]
    assert "outside the mask" in use_of(["cut"], None)["not_for"][-1]


def test_building_ends_where_added_structure_begins():
    """Twice the signal's power in shells 7 to 9; the mask spreads it by a shell."""
    halves = made.half_maps()
    band = (made.SHELLS >= 7) & (made.SHELLS <= 9)
    false = made.filtered(made.noise(9) * made.ball(9), np.where(band, np.exp(-7 * made.SHELLS / 18), 0))
    false *= np.sqrt(2) * np.std(made.filtered(made.signal(), 1.0 * band)) / np.std(false)
    use = account(made.study(halves, denoised_halves=[made.decent(one) + false for one in halves]))["use"]
    longest = made.SIDE * made.VOXEL
    possible = [f"{longest / shell:.3g} Å" for shell in (6, 7)]
    assert any(f"down to {one} and not beyond" in use["for"][1] for one in possible)
    assert any(f"Anything finer than {one}" in use["not_for"][-1] for one in possible)
