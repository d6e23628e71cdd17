"""`crefjax denoise --symmetry` on maps of symmetric and other arrangements of Gaussians."""

import json
import re

import numpy as np
import pytest
from helpers.cli import read, run_crefjax, run_ok, write

SIDE = 32
QUARTER = 2 * np.pi / 4


def particle(fold):
    """Gaussians with an n-fold axis along z through the voxel N/2, as a density in solvent."""
    places = np.random.default_rng(0).uniform((2, 2, -7), (7, 4, 7), (14, 3))
    z, y, x = np.indices((SIDE,) * 3) - SIDE // 2
    density = np.zeros((SIDE,) * 3)
    for turn in range(fold):
        c, s = np.cos(2 * np.pi * turn / fold), np.sin(2 * np.pi * turn / fold)
        for px, py, pz in places:
            distance = (x - (c * px - s * py)) ** 2 + (y - (s * px + c * py)) ** 2 + (z - pz) ** 2
            density += np.exp(-distance / (2 * 1.0**2))
    return density


@pytest.fixture
def halves(workdir):
    """Return a function that writes half-maps of a particle with an n-fold axis."""

    def make(fold, noise=0.15):
        random = np.random.default_rng(1)
        density = particle(fold)
        return [
            write(workdir / f"half_{n}.mrc", (density + noise * random.standard_normal(density.shape)).astype("f4"))
            for n in (1, 2)
        ]

    return make


def inside(radius=13):
    z, y, x = np.indices((SIDE,) * 3) - SIDE // 2
    return x**2 + y**2 + z**2 < radius**2


@pytest.mark.parametrize("scale", ["signal", "input", "none"])
def test_output_and_halves_are_symmetric_about_the_voxel_n_over_2(halves, weights, scale):
    more = ["--halves"] if scale == "signal" else []
    outcome = run_ok(
        "denoise", *halves(4), "-o", "out.mrc", "--weights", weights, "--symmetry", "c4", "--scale", scale, *more
    )
    assert "symmetry C4, averaged over 4 rotations: " in outcome.err
    z, y, x = np.indices((SIDE,) * 3)
    for name in ["out.mrc", "out_half_map_1.mrc", "out_half_map_2.mrc"][: 3 if more else 1]:
        output = read(name)[0]
        assert output.std() > 0
        turned = output[z, x, -y % SIDE]
        assert np.abs(output - turned)[inside()].max() < 1e-4 * output.std()


def test_output_of_five_rotations_is_the_mean_of_the_outputs_by_spline(halves, weights):
    """Averaging and the scale of the input are linear, so the mean of the plain output is expected."""
    from scipy.ndimage import affine_transform, gaussian_filter

    pair = halves(5)
    plain, averaged = (
        run_ok("denoise", *pair, "-o", name, "--weights", weights, "--scale", "none", *more) and read(name)[0]
        for name, more in (("plain.mrc", []), ("averaged.mrc", ["--symmetry", "C5"]))
    )
    # A spline alone blurs what is finer.
    plain, averaged = (gaussian_filter(output.astype("f8"), 1.0) for output in (plain, averaged))
    expected = np.zeros_like(plain)
    middle = np.array([SIDE // 2] * 3)
    for turn in range(5):
        c, s = np.cos(2 * np.pi * turn / 5), np.sin(2 * np.pi * turn / 5)
        matrix = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        expected += affine_transform(plain, matrix, middle - matrix @ middle, order=5, mode="nearest") / 5
    difference = (averaged - expected)[inside(11)]
    assert difference.std() < 0.02 * expected[inside(11)].std()


def test_a_group_without_anything_in_common_is_refused_before_the_work(halves, weights, workdir):
    pair = halves(5)
    outcome = run_crefjax("denoise", *pair, "-o", "out.mrc", "--weights", weights, "--symmetry", "O")
    assert outcome.status == 2
    assert re.search(r"--symmetry O: expected maps with this symmetry, found -?0\.0\d of their signal", outcome.err)
    assert "--insist" in outcome.err
    assert not (workdir / "out.mrc").exists()
    outcome = run_ok("denoise", *pair, "-o", "out.mrc", "--weights", weights, "--symmetry", "O", "--insist")
    assert re.search(r"warning: only -?0\.0\d of the input's signal up to", outcome.err)


def test_half_a_symmetry_gives_a_warning_in_the_report(halves, weights, workdir):
    """Half of the density has four subunits, the other half five."""
    density, random = particle(4) + 1.5 * particle(5), np.random.default_rng(2)
    pair = [
        write(workdir / f"h{n}.mrc", (density + 0.1 * random.standard_normal(density.shape)).astype("f4"))
        for n in (1, 2)
    ]
    run_ok("denoise", *pair, "-o", "out.mrc", "--weights", weights, "--symmetry", "C4", "--report", "report")
    numbers = json.loads((workdir / "report/report.json").read_text())
    symmetry = numbers["symmetry"]
    assert (symmetry["group"], symmetry["order"], symmetry["axis"]) == ("C4", 4, "4-fold axis along z")
    assert 0.1 < symmetry["input"] < 0.7
    texts = [warning["text"] for warning in numbers["warnings"] if warning["kind"] == "symmetry"]
    assert len(texts) == 1
    assert "4-fold axis along z" in texts[0]
    assert "Symmetry C4" in (workdir / "report/index.html").read_text()


def test_the_share_of_symmetric_signal_is_that_of_slow_numpy(halves, weights):
    """Within the whole box and all shells of the working grid, here the file's."""
    from crefjax.spectral.symmetry import point_group, shared_signal

    first, second = (read(path)[0].astype("f8") for path in halves(5, noise=0.02))
    z, y, x = np.indices((SIDE,) * 3)
    turned = np.empty_like(second)
    turned[z, x, -y % SIDE] = second
    k = np.fft.fftfreq(SIDE) * SIDE
    shell = np.round(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)).astype(int)

    def mean_fsc(other):
        a, b = np.fft.fftn(first - first.mean()), np.fft.fftn(other - other.mean())
        values = []
        for s in range(1, 9):
            at = shell == s
            power = np.sqrt((abs(a[at]) ** 2).sum() * (abs(b[at]) ** 2).sum())
            values.append(((a[at] * b[at].conj()).real.sum() / power, at.sum()))
        return sum(value * count for value, count in values) / sum(count for _, count in values)

    found, axis = shared_signal(
        [first.astype("f4"), second.astype("f4")],
        point_group("C4"),
        None,
        voxel_size=1.5,
        center=(SIDE // 2,) * 3,
        resolution=SIDE * 1.5 / 8,
    )
    assert found == pytest.approx(mean_fsc(turned) / mean_fsc(second), abs=1e-4)
    assert axis == "4-fold axis along z"


@pytest.mark.parametrize(("group", "message"), [("K9", "RELION's notation"), ("C2", "expected a cubic box")])
def test_unusable_groups_and_boxes_give_one_line(pair, weights, group, message):
    outcome = run_crefjax("denoise", *pair, "-o", "out.mrc", "--weights", weights, "--symmetry", group)
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.err.strip().count("\n") == 0
