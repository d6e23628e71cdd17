"""The viewer in a browser: planes, surfaces, and the model, at the coordinates of the map."""

import gemmi
import numpy as np
import pytest
from helpers.browser import SOFTWARE_WEBGL, browser
from helpers.cli import write
from scipy import ndimage

from crefjax.io.maps import read_map
from crefjax.io.models import read_model
from crefjax.report.viewer import make_viewer, write_view

BOX = (24, 30, 36)  # z, y, x
VOXEL = 2.0
ORIGIN = (30.0, -12.5, 100.0)  # x, y, z, Å
BALL = (10.0, 13.0, 20.0)  # center, z, y, x, voxels
RADIUS = 5.0  # voxels

LOOK = """
  const canvas = document.querySelector('.view[data-axis="0"][data-row="second"] canvas');
  const box = canvas.getBoundingClientRect();
  const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const click = (right, down) => canvas.dispatchEvent(new MouseEvent('click', {bubbles: true,
    clientX: box.left + right * box.width, clientY: box.top + down * box.height}));
  const found = {start: [...viewer.at]};
  click(4.5 / 36, 27.5 / 30);
  await frame();
  found.clicked = [...viewer.at];
  found.sliders = ['z', 'y', 'x'].map(name => Number(document.getElementById(`plane-${name}`).value));
  found.text = document.querySelector('.readout').textContent;
  canvas.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowUp', shiftKey: true}));
  canvas.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));
  canvas.dispatchEvent(new KeyboardEvent('keydown', {key: 'PageDown'}));
  found.keyed = [...viewer.at];
  const slider = document.getElementById('plane-x');
  slider.value = 35;
  slider.dispatchEvent(new Event('input'));
  found.slid = [...viewer.at];
  viewer.move([10, 13, 20]);
  await frame();
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const pixel = (right, down) => Math.floor(down * canvas.height) * canvas.width + Math.floor(right * canvas.width);
  found.shades = [pixels[4 * pixel(20.5 / 36, 1 - 11.5 / 30)], pixels[4 * pixel(0.1, 0.1)]];
  const shade = () => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
    .data[4 * pixel(22.5 / 36, 1 - 15.5 / 30)]; // in the ball, away from the cross
  const grays = ['black', 'white'].map(name => document.getElementById(`gray-${name}`));
  const set = async (end, place) => {
    grays[end].value = place;
    grays[end].dispatchEvent(new Event('input'));
    await frame();
    return [...grays.map(each => Number(each.value)), shade()];
  };
  const texts = () => [...document.querySelectorAll('.grays output')].map(output => output.textContent);
  found.grays = {start: [...grays.map(each => Number(each.value)), shade()], texts: texts()};
  found.grays.steps = Number(grays[1].max);
  found.grays.white = await set(1, grays[1].max);
  found.grays.whiteText = texts()[1];
  found.grays.colors = viewer.layers.slice(0, 2).map(layer => layer.color(viewer.index([10, 13, 20])));
  found.grays.crossed = await set(0, grays[0].max);
  document.getElementById('gray-reset').click();
  await frame();
  found.grays.reset = [...grays.map(each => Number(each.value)), shade()];
  found.wide = document.documentElement.scrollWidth > innerWidth;
  document.getElementById('surfaces').scrollIntoView();
  found.state = await surfaces.begin();
  found.problem = !document.querySelector('#surfaces .problem').hidden;
  if (found.state !== 'drawn') return found;
  await frame();
  const [first, second] = surfaces.panels;
  first.stage.viewerControls.spin([0, 1, 0], 0.3);
  await frame();
  found.cameras = [first, second].map(panel => panel.stage.viewerControls.getOrientation().toArray());
  const {levels, voxels} = surfaces.contours();
  found.enclosed = [voxels, surfaces.enclosed('first', levels.first), surfaces.enclosed('second', levels.second)];
  const {low, high, highest} = viewer.volumes.second;
  found.level = low + levels.second / highest * (high - low);
  const corners = second.component.reprList[0].repr.surface.position;
  found.surface = [0, 1, 2].map(axis => {
    const along = corners.filter((_, i) => i % 3 === axis);
    return [Math.min(...along), Math.max(...along)];
  });
  const atoms = [];
  first.model.structure.eachAtom(atom => atoms.push([atom.x, atom.y, atom.z]));
  found.atoms = atoms;
  const field = Uint8Array.from(viewer.volumes.first.levels);
  const contour = Math.round(0.6 * viewer.volumes.first.highest);
  found.kept = [...surfaces.withoutDust(field, contour)].reduce((count, level) => count + (level > contour), 0);
  found.contour = [contour, viewer.volumes.first.highest];
  const colors = document.getElementById('surface-color');
  colors.value = 'change';
  colors.dispatchEvent(new Event('change'));
  found.scale = !document.querySelector('#surfaces .scale').hidden;
  return found;
"""


def ball():
    z, y, x = np.meshgrid(*map(np.arange, BOX), indexing="ij")
    distance = np.sqrt((z - BALL[0]) ** 2 + (y - BALL[1]) ** 2 + (x - BALL[2]) ** 2)
    return np.clip((RADIUS + 2 - distance) / 4, 0, 1).astype(np.float32)  # linear about the radius


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a noisy map, a ball, a model with an atom at its center, and their page."""
    folder = tmp_path_factory.mktemp("viewer")
    noisy = ball() + 0.3 * np.random.default_rng(3).standard_normal(BOX).astype(np.float32)
    write(folder / "noisy.mrc", noisy, voxel=VOXEL, origin=ORIGIN)
    write(folder / "ball.mrc", ball(), voxel=VOXEL, origin=ORIGIN, axes=(3, 1, 2))
    structure = gemmi.read_pdb_string(
        "ATOM      1  CA  ALA A   1    "
        + "".join(f"{ORIGIN[axis] + VOXEL * BALL[2 - axis]:8.3f}" for axis in range(3))
        + "  1.00 30.00           C\nEND\n"
    )
    structure.write_pdb(str(folder / "model.pdb"))
    maps = (read_map(folder / name) for name in ("noisy.mrc", "ball.mrc"))
    write_view(folder / "view.html", make_viewer(*maps, read_model(folder / "model.pdb")))
    return folder


@pytest.fixture(scope="module")
def found(folder, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser"), SOFTWARE_WEBGL) as tab:
        tab.open(folder / "view.html")
        found = tab.run(LOOK)
        assert tab.problems() == []
    if found["state"] != "drawn":
        pytest.skip("needs a browser with WebGL, in software at least, and found none")
    return found


def test_click_in_a_plane_moves_the_other_two(found):
    assert found["start"][0] == BALL[0]  # the plane with most above the contour
    # the fifth of 36 voxels from the left, and the third of 30 from below
    assert found["clicked"] == [10, 2, 4]
    assert found["sliders"] == [10, 2, 4]
    assert found["text"].startswith("voxel x 4, y 2, z 10 · (38.0, -8.5, 120.0) Å · noisy.mrc ")


def test_keys_and_sliders_move_the_planes(found):
    assert found["keyed"] == [9, 12, 5]
    assert found["slid"] == [9, 12, 35]


def test_plane_shows_the_density_where_it_is(found):
    inside, outside = found["shades"]
    assert inside > 200
    assert outside < 100


def test_grays_are_set_for_both_maps(found, folder):
    """White moved to the largest density makes both maps darker; black stays below white; a button brings both back."""
    grays, steps = found["grays"], found["grays"]["steps"]
    (black, white, shade), (low, high) = grays["start"], map(float, grays["texts"])
    assert 0 <= black < white < steps
    *places, darker = grays["white"]
    assert places == [black, steps]
    highest = float(grays["whiteText"])
    assert darker / shade == pytest.approx((high - low) / (highest - low), abs=0.02)  # black stays where it was
    noisy = read_map(folder / "noisy.mrc").array[10, 13, 20]
    first, second = grays["colors"]
    assert first == pytest.approx(254 * (noisy - low) / (highest - low), abs=3)
    assert second == pytest.approx(darker, abs=2)
    assert grays["crossed"][:2] == [steps - 1, steps]
    assert grays["reset"] == grays["start"]


def test_surface_lies_around_the_ball_at_the_coordinates_of_the_header(found):
    """Its extent is the diameter of the sphere on which the density is the contour's."""
    radius = RADIUS + 2 - 4 * found["level"]
    for axis, (low, high) in enumerate(found["surface"]):
        middle = ORIGIN[axis] + VOXEL * BALL[2 - axis]
        assert (low + high) / 2 == pytest.approx(middle, abs=0.02)
        assert (high - low) / 2 == pytest.approx(VOXEL * radius, abs=0.1)


def test_model_lies_in_the_ball(found):
    (atom,) = found["atoms"]
    assert atom == pytest.approx([ORIGIN[axis] + VOXEL * BALL[2 - axis] for axis in range(3)], abs=2e-3)


def test_contours_enclose_the_same_volume(found):
    wanted, first, second = found["enclosed"]
    assert first == pytest.approx(wanted, abs=0.01)
    assert second == pytest.approx(wanted, abs=0.01)
    assert wanted == pytest.approx((ball() > found["level"]).sum(), rel=0.05)


def test_both_maps_have_one_camera(found):
    first, second = found["cameras"]
    assert first == pytest.approx(second, abs=1e-5)
    assert abs(first[2]) > 0.1 * abs(first[0])  # it was turned


def test_small_parts_are_hidden(found, folder):
    noisy = read_map(folder / "noisy.mrc").array
    low, high = np.percentile(noisy, (0.01, 99.99))
    contour, highest = found["contour"]
    above = np.round(highest * np.clip((noisy - low) / (high - low), 0, 1)) > contour
    parts, number = ndimage.label(above)  # joined by faces
    sizes = np.bincount(parts.ravel())[1:]
    least = 25  # voxels of 8 Å³ in 200 Å³
    assert number > 1
    assert found["kept"] == sizes[sizes >= least].sum()


def test_color_of_the_change_has_a_scale_and_the_page_fits(found):
    assert found["scale"]
    assert not found["wide"]


def test_without_webgl_the_page_says_so_and_shows_the_planes(folder, tmp_path):
    with browser(tmp_path) as tab:
        tab.open(folder / "view.html", size=(390, 800), dark=True)
        found = tab.run(LOOK)
        assert tab.problems() == []
    assert found["state"] == "no WebGL"
    assert found["problem"]
    assert found["clicked"] == [10, 2, 4]
    assert found["shades"][0] > 200 > 100 > found["shades"][1]
    assert not found["wide"]
