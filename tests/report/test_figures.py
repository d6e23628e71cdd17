import re
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.report_inputs import SHELLS, estimate, example_numbers

from crefjax.report.figures import draw_figures

ALL = ["fsc", "fit_to_cref", "power", "directional", "ratios", "kept"]


@pytest.fixture(scope="module")
def drawn():
    return {figure.name: figure for figure in draw_figures(example_numbers())}


def test_every_figure_is_a_png_and_an_svg(drawn):
    assert list(drawn) == ALL
    for figure in drawn.values():
        assert figure.png.startswith(b"\x89PNG")
        assert ElementTree.fromstring(figure.svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert figure.title
        assert figure.caption
        assert figure.alt


def texts_of(figure):
    """The texts of a figure; matplotlib writes each as a comment before its glyphs."""
    return re.findall(r"<!-- (.*?) -->", figure.svg.decode())


def test_frequency_axes_show_angstrom_and_curves_have_units(drawn):
    for figure in drawn.values():
        assert "Resolution (Å)" in texts_of(figure)
        assert "3" in texts_of(figure)  # the Nyquist limit of 1.5 Å voxels
    assert "power per Fourier voxel (map&apos;s units²)".replace("&apos;", "'") in texts_of(drawn["power"])
    assert "3.89 Å at 0.143" in texts_of(drawn["fsc"])
    assert "4.67 Å at 0.5" in texts_of(drawn["fsc"])


def test_untrusted_shells_are_marked(drawn):
    for name, figure in drawn.items():
        assert ("not to be trusted" in texts_of(figure)) == (name in ("power", "ratios", "kept"))
    numbers = example_numbers()
    for name in ("signal_kept", "noise_kept"):
        numbers[name] = estimate([0.5] * SHELLS)
    assert "not to be trusted" not in texts_of(draw_figures(numbers)[-1])


def test_without_denoised_half_maps_there_are_four_figures():
    figures = draw_figures(example_numbers(halves=False))
    assert [figure.name for figure in figures] == ALL[:4]
    assert "residual noise" not in texts_of(figures[2])


@pytest.mark.parametrize("hopeless", ["nothing trusted", "negative", "one shell", "never falls"])
def test_nearly_empty_curves_are_drawn(hopeless):
    numbers = example_numbers()
    if hopeless == "nothing trusted":
        for group in ("variances", "ratios"):
            for name in numbers[group]:
                numbers[group][name] = estimate([1.0] * SHELLS, range(SHELLS))
        numbers["signal_kept"] = numbers["noise_kept"] = estimate([1.0] * SHELLS, range(SHELLS))
    elif hopeless == "negative":
        numbers["variances"]["bias"] = estimate([-1.0] * SHELLS)
        numbers["curves"]["fsc_halves"] = [-0.5] * SHELLS
    elif hopeless == "one shell":
        numbers["ratios"]["signal_to_bias"] = estimate(np.ones(SHELLS).tolist(), set(range(SHELLS)) - {5})
    else:
        numbers["resolution"]["fsc_0.143"] = {"angstrom": 3.0, "crossed": False}
    figures = draw_figures(numbers)
    assert [figure.name for figure in figures] == ALL
    if hopeless == "never falls":
        assert "never below 0.143" in texts_of(figures[0])
