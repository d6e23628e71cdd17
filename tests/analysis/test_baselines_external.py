"""Calls of LAFTER, Topaz, Servalcat, and cryoRIDGE, as programs in their place see them, and the end of a run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from helpers.baseline_entries import about, halves_of, make_entry, read, write
from scipy.stats import rankdata

from analysis.baselines import baselines, external
from crefjax.errors import UserError
from crefjax.io.entries import find_entry, load_pair

ROOT = Path(__file__).parents[2]


@pytest.fixture
def entry(tmp_path):
    return make_entry(tmp_path / "entry")


# LAFTER and Topaz expect a cube of float32 right after 1024 bytes. The maps are made by formulas.
READING = """
import sys, os, struct
import numpy as np
def read(path):
    raw = open(path, "rb").read()
    nx, ny, nz, mode = struct.unpack("<4i", raw[:16])
    if mode != 2 or not nx == ny == nz:
        print("Error reading", path, "- not 32 bit data, or not a cube")
        sys.exit(1)
    return raw[:1024], np.frombuffer(raw[1024:], "<f4").reshape(nz, ny, nx)
def write(path, header, data):
    open(path, "wb").write(header + data.astype("<f4").tobytes())
def value(option):
    return sys.argv[sys.argv.index(option) + 1]
"""
LAFTER = (
    READING
    + """
header, first = read(value("--v1"))
second, mask = read(value("--v2"))[1], read(value("--mask"))[1]
assert mask.min() == 0 and mask.max() <= 1
made = mask * (first + second)
if "--downsample" not in sys.argv or VERSION == 1.0:
    spectrum, n = np.fft.fftshift(np.fft.fftn(made)), len(made)
    for axis in range(3):  # half of a Nyquist wave on either side
        first = np.take(spectrum, [0], axis) / 2
        spectrum = np.concatenate([first, np.delete(spectrum, 0, axis), first], axis)
    spectrum = np.pad(spectrum, [(n // 2, n // 2 - 1)] * 3)
    made = 8 * np.fft.ifftn(np.fft.ifftshift(spectrum)).real
    # As LAFTER does: the cell stays, and so do ORIGIN and NSTART.
    header = struct.pack("<3i", *made.shape) + header[12:28] + struct.pack("<3i", *made.shape) + header[40:]
write("noise_suppressed.mrc", header, made)
write({1.0: "lafter.mrc", 1.1: "LAFTER_filtered.mrc"}[VERSION], header, made)
print("That's All Folks!")
"""
)
TOPAZ = (
    READING
    + """
assert sys.argv[1] == "denoise3d"
output, suffix, rest = value("--output"), value("--suffix"), sys.argv[2:]
volumes = [path for path in rest if path.endswith(".mrc")]
print("# using device=-2 with cuda=False", file=sys.stderr)
os.makedirs(output)
for path in volumes:
    header, data = read(path)
    stem, end = os.path.splitext(os.path.basename(path))
    write(os.path.join(output, stem + suffix + end), header, 10 * data - (3 if "--model" in rest else 0))
"""
)

# Servalcat writes its map at the origin 0, in the box of the half-maps; the map here is a formula of what it was given.
SERVALCAT = (
    READING
    + """
assert sys.argv[1:3] == ["util", "nemap"]
place = sys.argv.index("--halfmaps")
(header, first), (_, second) = (read(path) for path in sys.argv[place + 1 : place + 3])
assert struct.unpack("<3f", header[196:208]) == (0, 0, 0)
mask = read(value("--mask"))[1]
made = mask * (first if "--half1_only" in sys.argv else first + second) + second / 4
print("Normalized expected map calculation")
write(value("--output_prefix") + "_normalized_fo.mrc", header, made)
"""
)
CRYORIDGE = (
    READING
    + """
if sys.argv[1] == "features":
    assert sys.argv[2] == "full.mrc" and "--float32" in sys.argv
    np.save(open(value("--out"), "wb"), read(sys.argv[2])[1])
else:
    assert sys.argv[1] == "reliability"
    contour = float(next(word for word in sys.argv if word.startswith("--contour="))[10:])
    header, full = read(value("--reference"))
    first, second = (read(value(option))[1] for option in ("--half1", "--half2"))
    assert np.allclose(full, (first + second) / 2, atol=1e-6) and (full > contour).all()
    assert np.array_equal(np.load(value("--features")), full)
    os.makedirs(value("--out-dir"))
    ranks = np.argsort(np.argsort(full, axis=None)).reshape(full.shape) + 1
    write(value("--out-dir") + "/" + value("--label") + "_reliability.mrc", header, ranks / full.size)
"""
)


def program(folder, text, name="program"):
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("release", "how"), [(1.1, "as it is"), (1.0, f"Fourier-cropped from {'x'.join(['64'] * 3)} at 1 Å")]
)
def test_lafter_gets_its_arguments_and_files(entry, tmp_path, release, how):
    """Its map has the header of half-map 1, and that of 1.0 the entry's sampling again."""
    fake = program(tmp_path, LAFTER.replace("VERSION", str(release)), "lafter")
    assert baselines.STUDY.main([str(entry), "--method", "lafter", "--program", fake]) == 0
    first, second = halves_of(entry)
    expected = mrcfile.read(entry / "mask.mrc") * (first + second)
    np.testing.assert_allclose(read(entry, "lafter"), expected, atol=1e-4)
    with mrcfile.open(entry / "outputs" / "lafter" / "full.mrc") as mrc:
        assert mrc.header.origin.x == 3
    record = about(entry, "lafter")
    assert record["how"] == how
    assert record["said"][-1] == "That's All Folks!"
    assert record["command"][:2] == [fake, "--v1"]
    assert find_entry(entry).outputs["lafter"].half_map_1 is None


def test_topaz_denoises_full_map_and_half_maps(entry, tmp_path, monkeypatch):
    """Found by its name, as a user would have it, and with an argument of its own."""
    program(tmp_path, TOPAZ, "topaz")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert baselines.STUDY.main([str(entry), "--method", "topaz", "--arguments", "--model unet-3d-20a"]) == 0
    first, second = halves_of(entry)
    for name, map_ in (("full", (first + second) / 2), ("half_map_1", first), ("half_map_2", second)):
        np.testing.assert_allclose(read(entry, "topaz", name), 10 * map_ - 3, atol=1e-4)
    assert about(entry, "topaz")["settings"] == {"arguments": ["--model", "unet-3d-20a"]}


def test_servalcat_makes_full_map_and_half_maps_at_the_origin_of_the_entry(entry, tmp_path, monkeypatch):
    program(tmp_path, SERVALCAT, "servalcat")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert baselines.STUDY.main([str(entry), "--method", "servalcat", "--arguments=-B 10"]) == 0
    first, second = halves_of(entry)
    mask = mrcfile.read(entry / "mask.mrc")
    expected = {
        "full": mask * (first + second) + second / 4,
        "half_map_1": mask * first + second / 4,
        "half_map_2": mask * second + first / 4,
    }
    for name, map_ in expected.items():
        np.testing.assert_allclose(read(entry, "servalcat", name), map_, atol=1e-4)
        with mrcfile.open(entry / "outputs" / "servalcat" / f"{name}.mrc") as mrc:
            assert mrc.header.origin.x == 3
    assert about(entry, "servalcat")["command"][-2:] == ["-B", "10"]
    assert about(entry, "servalcat")["said"] == ["Normalized expected map calculation"]


def test_cryoridge_gives_every_voxel_a_rank(entry, tmp_path):
    pair = load_pair(entry / "half_map_1.mrc", entry / "half_map_2.mrc")
    score = external.reliability(pair, program(tmp_path, CRYORIDGE))
    full = (pair[0].array + pair[1].array) / 2
    assert score.min() > 0
    assert score.max() == 1
    np.testing.assert_allclose(score, rankdata(full).reshape(full.shape) / full.size, atol=1e-4)


def test_cryoridge_that_writes_no_score_is_reported(entry, tmp_path, capsys):
    pair = load_pair(entry / "half_map_1.mrc", entry / "half_map_2.mrc")
    with pytest.raises(UserError, match="cryoridge: expected it to write score_reliability"):
        external.reliability(pair, program(tmp_path, "print('no voxels above the contour')"))
    assert "no voxels above the contour" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("import sys; print('MAPS MUST BE THE SAME SIZE!'); sys.exit(1)", "MAPS MUST BE", "failed with status 1"),
        ("import sys; sys.stderr.write('out of memory\\n'); sys.exit(3)", "out of memory", "failed with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "", "failed with signal 9"),
        ("print('done, it seems')", "done, it seems", "expected it to write LAFTER_filtered.mrc"),
        ("open('LAFTER_filtered.mrc', 'w').write('text')", "", "cannot be used"),
    ],
)
def test_output_of_a_failed_program_is_shown(entry, tmp_path, text, line, expected, capsys):
    assert baselines.STUDY.main([str(entry), "--method", "lafter", "--program", program(tmp_path, text)]) == 2
    *passed, last = capsys.readouterr().err.splitlines()
    assert expected in last
    assert line in "\n".join(passed)
    assert not (entry / "outputs").exists()


def test_a_broken_program_and_a_box_that_is_not_cubic_are_refused(tmp_path, entry, capsys):
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    assert baselines.STUDY.main([str(entry), "--method", "lafter", "--program", str(broken)]) == 2
    assert "cannot be run" in capsys.readouterr().err
    for name in ("half_map_1", "half_map_2", "mask"):
        array = mrcfile.read(entry / f"{name}.mrc")[:30]
        (entry / f"{name}.mrc").unlink()
        write(entry / f"{name}.mrc", array)
    fake = program(tmp_path, LAFTER.replace("VERSION", "1.1"))
    assert baselines.STUDY.main([str(entry), "--method", "lafter", "--program", fake]) == 2
    assert "cubic box" in capsys.readouterr().err


@pytest.mark.slow
def test_sigterm_ends_programs_of_all_processes_and_leaves_no_unfinished_folder(tmp_path):
    """With two jobs, a signal while a program runs leaves neither the program nor an unfinished folder."""
    entries = [make_entry(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    command = [sys.executable, "-m", "analysis", "baselines", *map(str, entries), "--jobs", "2", "--method"]
    done = subprocess.run([*command, "full"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "outputs: 2 made, 0 were there, 0 could not be made\n"), done.stderr
    sleeper = program(
        tmp_path, f"import os, time; open(f'{tmp_path}/{{os.getpid()}}.pid', 'w').close(); time.sleep(100)"
    )
    with subprocess.Popen([*command, "lafter", "--program", sleeper], cwd=ROOT) as running:
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 128 + signal.SIGTERM
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert all([path.name for path in (entry / "outputs").iterdir()] == ["full"] for entry in entries)


def test_a_missing_program_is_named():
    with pytest.raises(UserError, match="none-such"):
        external.find_program("none-such")
