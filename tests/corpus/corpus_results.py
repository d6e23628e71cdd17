"""Whether what a command has written is right, by NumPy, mrcfile and the standard's table of words alone."""

import bz2
import gzip
import json
import struct

import mrcfile
import numpy as np
from corpus_material import FIELDS, SIDE, half_maps, mask_array
from helpers.cli import file_order, valid
from reference import spectra as slow_spectra

# What a command keeps of the header of the half-map that it was given first.
KEPT = ("nstart", "m", "angles", "origin")


def slow_curve(first, second, mask=None):
    """The FSC by plain NumPy; under a mask, of the maps less their mean outside of it."""
    maps = [array.astype("f8") for array in (first, second)]
    if mask is not None:
        outside = 1 - mask.astype("f8")
        enough = outside.sum() >= 1e-3 * mask.size
        levels = [np.average(array, weights=outside) if enough else array.mean() for array in maps]
        maps = [(array - level) * mask for array, level in zip(maps, levels, strict=True)]
    return slow_spectra.fsc(*maps)


def crossing(curve, threshold=0.143):
    """The shell at which a curve falls below a threshold."""
    shell = next((shell for shell in range(1, len(curve)) if curve[shell] < threshold), None)
    if shell is None or shell == 1:
        return shell or len(curve) - 1
    return shell - 1 + (curve[shell - 1] - threshold) / (curve[shell - 1] - curve[shell])


def check_curve(path, inputs):
    """The JSON of `fsc` has the curve of the maps as their files hold them."""
    found = json.loads(path.read_text())
    assert abs(found["voxel_size"] / inputs.voxel_size - 1) < 1e-3
    mask = None if inputs.mask is None else read(inputs.mask).clip(0, 1)
    expected = slow_curve(*inputs.arrays, mask)
    power = np.min([_power(array) for array in inputs.arrays], axis=0)
    known = power > 1e-9 * power[1:].max()  # beyond a low-pass there is rounding alone
    known[0] = False
    np.testing.assert_allclose(np.array(found["fsc"])[known], expected[known], atol=5e-3)
    if known[1:].all():
        shell = max(inputs.arrays[0].shape) * inputs.voxel_size / found["resolution_at_0.143"]
        assert abs(shell - crossing(expected)) < 0.1


def _power(array):
    spectrum = np.abs(np.fft.fftn(array.astype("f8"))) ** 2
    return slow_spectra.shell_sums(spectrum, array.shape)


def check_header(source, written):
    """The header of the map that was given, where its words mean anything."""
    raw, found = (header_of(path) for path in (source, written))
    for name in KEPT:
        offset, kind = FIELDS[name]
        values = [struct.unpack_from(order + kind, header, offset) for header, order in (raw, found)]
        if np.all(np.isfinite(values[0])):
            assert values[0] == values[1], (name, values)


def check_map(path, sound, inputs, half_map, *, like_sound, least=0.99, scale=1.0):
    """A map under the header of one that was given, with the densities of the sound pair's result.

    Args:
        path: of the map.
        sound: the result of the sound pair.
        inputs: of the command.
        given: the half-map whose header it has.
        like_sound: whether its densities are those of the sound pair's.
        least: correlation with these.
        scale: over these.
    """
    assert valid(path)
    if not inputs.options:
        check_header(half_map, path)
    with mrcfile.open(path) as file:
        assert abs(float(file.voxel_size.x) / inputs.voxel_size - 1) < 1e-3
    if like_sound:
        found, sound = (array.ravel() - array.mean() for array in (read(path) / scale, sound))
        assert found @ sound / np.sqrt((found @ found) * (sound @ sound)) > least, "another map than of the sound pair"
        assert abs(found @ sound / (sound @ sound) - 1) < 0.1, "another scale than of the sound pair"


def check_dataset(folder, inputs, *, like_sound):
    """Both entries are in the dataset, and the deviation of the full map is that of the sound pair's."""
    entries = {entry["name"]: entry for entry in json.loads((folder / "manifest.json").read_text())["entries"]}
    assert set(entries) == {"inputs", "beside"}
    if like_sound:
        full = sum(half.astype("f8") for half in half_maps()) / 2
        assert abs(entries["inputs"]["deviation"] / (inputs.scale * full.std()) - 1) < 0.05


def check_report(folder, inputs, *, like_sound):
    """The resolution is that of the sound pair, within what its mask may do to it."""
    found = json.loads((folder / "report.json").read_text())["resolution"]["fsc_0.143"]["angstrom"]
    if like_sound:
        shell = SIDE * inputs.voxel_size / found
        assert abs(shell - crossing(slow_curve(*half_maps(), mask_array()))) < 1.5, found


def left_out(err, folder):
    """The line by which `prepare` leaves out the entry, and not the other one."""
    (line,) = [line for line in err.splitlines() if line.startswith("skipped ")]
    assert line.startswith("skipped inputs: "), line
    entries = json.loads((folder / "manifest.json").read_text())["entries"]
    assert [entry["name"] for entry in entries] == ["beside"]
    return line


def header_of(path):
    """The first 1024 bytes of a map, and their order, told by what the mode means."""
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else bz2.decompress(raw) if raw[:3] == b"BZh" else raw
    return raw[:1024], "<" if struct.unpack_from("<i", raw, 12)[0] in (0, 1, 2, 6, 12) else ">"


def read(path):
    """The (z, y, x) array of a map that a command has written, or of a mask."""
    with mrcfile.open(path, permissive=True) as file:
        header = file.header
        axes = (int(header.mapc), int(header.mapr), int(header.maps))
        return file.data.reshape(file.data.shape[-3:]).transpose(np.argsort(file_order(axes))).astype("f8")
