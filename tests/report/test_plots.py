import numpy as np
import pytest

from crefjax.report.plots import fsc_figure
from crefjax.spectral.curve import FscCurve

CURVE = FscCurve((16, 16, 16), 1.5, np.array([1, 0.99, 0.95, 0.9, 0.7, 0.4, 0.2, 0.05, 0.0]))


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_figure_files_are_what_they_say(kind, magic):
    assert fsc_figure(CURVE, (0.5, 0.143), kind).startswith(magic)


def test_the_figure_tells_the_resolutions():
    svg = fsc_figure(CURVE, (0.5,), "svg").decode()
    # 0.5 lies between shells 4 (0.7) and 5 (0.4): 24 Å / (4 + 2/3)
    assert "5.14 Å at 0.5" in svg
    never = FscCurve((8, 8, 8), 1.0, np.array([1, 0.9, 0.9, 0.9, 0.8]))
    assert "above 0.5 to Nyquist" in fsc_figure(never, (0.5,), "svg").decode()
