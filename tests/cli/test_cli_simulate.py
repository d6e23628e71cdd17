"""`crefjax simulate`: an entry folder of consistent half-maps, mask, truth and model."""

import argparse
import json
import shlex
import subprocess
import sys

import gemmi
import numpy as np
import pytest
from helpers.cli import assert_refused, read, run_ok, tree, valid, write
from reference.spectra import fsc as numpy_fsc

from crefjax.cli import main as cli
from crefjax.cli import simulate
from crefjax.io.entries import find_entry, load_mask, load_pair
from crefjax.io.maps import read_map
from crefjax.simulate.half_maps import Belt, BulkSolvent, Flexible, SimulationConfig
from crefjax.simulate.imaging import CtfParameters, Particles

SMALL = ["phantom", "--residues", 60, "--voxel-size", 2.0, "--resolution", 6.0, "--box", 32]
FILES = {"half_map_1.mrc", "half_map_2.mrc", "mask.mrc", "truth.mrc", "model.cif", "entry.json"}
PDB = "ATOM  {:5d} {:<4} ALA A{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00 30.00          {:>2}\n"


@pytest.fixture(scope="module")
def simulation(tmp_path_factory):
    """Simulate an entry of a small phantom; return its folder and the output."""
    folder = tmp_path_factory.mktemp("simulated") / "entry"
    return folder, run_ok("simulate", *SMALL, "-o", folder)


@pytest.fixture
def model(workdir):
    """Write a model of ten carbon atoms within 20 Å."""
    return write_pdb(workdir / "model.pdb", [(i % 3, 2.0 * i, 5.0 * (i % 4), "C") for i in range(10)])


def write_pdb(path, atoms):
    path.write_text("".join(PDB.format(i, " CA", i, *atom) for i, atom in enumerate(atoms, 1)) + "END\n")
    return path


def crossing(folder):
    """Return where the masked FSC of an entry's half-maps crosses 0.143, in Å."""
    first, second, mask = (read(folder / f"{name}.mrc")[0] for name in ("half_map_1", "half_map_2", "mask"))
    fsc = numpy_fsc(first * mask, second * mask)
    shell = int(np.flatnonzero(fsc[1:] < 0.143)[0]) + 1
    share = (fsc[shell - 1] - 0.143) / (fsc[shell - 1] - fsc[shell])
    return len(mask) * read_map(folder / "mask.mrc").voxel_size / (shell - 1 + share)


def test_simulated_entry_is_accepted_by_other_commands(simulation):
    folder, _ = simulation
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["entry"]
    entry = find_entry(folder)
    pair = load_pair(entry.half_map_1, entry.half_map_2)
    mask = load_mask(entry.mask, pair[0])
    assert mask.array.shape == (32, 32, 32)
    assert mask.voxel_size == pytest.approx(2.0)
    assert entry.truth.name == "truth.mrc"
    assert entry.model.name == "model.cif"
    for name in FILES - {"model.cif", "entry.json"}:
        assert valid(folder / name)


def test_half_maps_are_the_truth_with_independent_noise(simulation):
    folder, _ = simulation
    first, second, truth = (read(folder / f"{name}.mrc")[0] for name in ("half_map_1", "half_map_2", "truth"))
    noises = np.array([(half - truth).ravel() for half in (first, second)])
    deviation = json.loads((folder / "entry.json").read_text())["level"]["noise_deviation"]
    np.testing.assert_allclose(noises.std(axis=1), deviation, rtol=0.02)
    assert abs(np.corrcoef(noises)[0, 1]) < 4 / np.sqrt(truth.size)


def test_fsc_crosses_at_the_requested_resolution(simulation):
    folder, outcome = simulation
    assert crossing(folder) == pytest.approx(6.0, rel=0.02)
    report = json.loads((folder / "entry.json").read_text())
    assert report["resolution_reached"] == pytest.approx(crossing(folder), rel=1e-3)
    assert f"0.143 at {crossing(folder):.2f} Å (6 Å asked for)" in outcome.out
    assert "32x32x32 voxels of 2 Å" in outcome.out
    assert all(name in outcome.out for name in FILES)


def test_printed_command_denoises_the_entry(simulation, workdir, weights):
    line = simulation[1].out.rstrip().split("\n")[-1].split("crefjax ", 1)[1]
    run_ok(*shlex.split(line), "--weights", weights)
    assert read(workdir / "denoised.mrc")[0].shape == (32, 32, 32)


def test_report_has_every_parameter(simulation):
    report = json.loads((simulation[0] / "entry.json").read_text())
    assert report["model"] == "phantom"
    assert report["model_options"] == {"residues": 60}
    expected = {"voxel_size": 2.0, "resolution": 6.0, "box": 32, "b_factor": 60.0, "seed": 0, "noise": "white"}
    assert expected.items() <= report["parameters"].items()


def test_model_overlays_the_truth(simulation):
    """Read by gemmi, the density is far above that of the box at the atoms, but not at their mirror images."""
    folder, _ = simulation
    grid = gemmi.read_ccp4_map(str(folder / "truth.mrc"), setup=True).grid
    structure = gemmi.read_structure(str(folder / "model.cif"))
    assert structure.cell.parameters == pytest.approx((64, 64, 64, 90, 90, 90))
    places = np.array([site.atom.pos.tolist() for site in structure[0].all()])
    truth = read(folder / "truth.mrc")[0]

    def mean_at(positions):
        return np.mean([grid.interpolate_value(gemmi.Position(*position)) for position in positions])

    assert mean_at(places) > truth.mean() + 3 * truth.std()
    assert mean_at(places) > 1.2 * mean_at(places * [1, 1, -1] + [0, 0, 64])


def test_bytes_depend_on_the_seed_alone(simulation, workdir):
    folder, _ = simulation
    run_ok("simulate", *SMALL, "-o", workdir / "again")
    run_ok("simulate", *SMALL, "-o", workdir / "other", "--seed", 1)
    first, again, other = tree(folder), tree(workdir / "again"), tree(workdir / "other")
    assert again == first
    assert {name for name in FILES if other[name] != first[name]} == {"half_map_1.mrc", "half_map_2.mrc", "entry.json"}


def test_reconstruction(workdir):
    optics = ["--defocus", 9000, 12000, "--voltage", 200]
    run_ok(
        *("simulate", *SMALL, "-o", "e", "--method", "reconstruction", "--particles", 60, "--pose-error", 1),
        *("--shift-error", 0.5, "--refinements", 0, *optics),
    )
    assert crossing(workdir / "e") == pytest.approx(6.0, rel=0.02)
    particles = json.loads((workdir / "e" / "entry.json").read_text())["parameters"]["particles"]
    assert {"count": 60, "pose_error": 1.0, "shift_error": 0.5}.items() <= particles.items()
    assert {"defocus_min": 9000.0, "defocus_max": 12000.0, "voltage": 200.0}.items() <= particles["ctf"].items()


def test_specimen_and_noise_have_the_requested_properties(workdir):
    noise = np.random.default_rng(0).standard_normal((32, 32, 32)).astype("f4")
    write(workdir / "noise.mrc", noise, voxel=2.0)
    run_ok(
        *("simulate", *SMALL, "-o", "e", "--belt", 0.5, "--belt-width", 8, "--flexible-chains", "A,B"),
        *(
            "--bulk-solvent",
            0.3,
            "--flexible-angle",
            2,
            "--noise-map",
            "noise.mrc",
            "--noise-until",
            5,
            "--unevenness",
            0.2,
        ),
    )
    assert crossing(workdir / "e") == pytest.approx(6.0, rel=0.02)
    parameters = json.loads((workdir / "e" / "entry.json").read_text())["parameters"]
    assert {"strength": 0.5, "width": 8.0, "thickness": 30.0}.items() <= parameters["belt"].items()
    assert parameters["bulk_solvent"] == {"scale": 0.3, "b_factor": 100.0}
    assert {"chains": ["A", "B"], "angle": 2.0, "b_factor": 50.0}.items() <= parameters["flexible"].items()
    assert parameters["noise"] == "measured in noise.mrc, level beyond 5 Å"
    assert parameters["unevenness"] == 0.2


def test_reads_a_model_file(workdir, model):
    run_ok("simulate", model, "-o", "e", "--voxel-size", 2, "--resolution", 6, "--box", 32, "--noise-b-factor", 20)
    report = json.loads((workdir / "e" / "entry.json").read_text())
    assert report["atoms"] == 10
    assert report["model_options"] == {"assembly": None, "keep_hydrogens": False, "keep_waters": False}


def test_overwrite_replaces_only_a_simulated_entry(simulation, workdir):
    (workdir / "mine").mkdir()
    (workdir / "mine" / "notes.txt").write_text("mine")
    refused = ["mine", "expected a simulated entry"]
    assert_refused(workdir, "simulate", *SMALL, "-o", "mine", "--overwrite", names=refused)
    run_ok("simulate", *SMALL, "-o", "e", "--seed", 1)
    assert_refused(workdir, "simulate", *SMALL, "-o", "e", names=["e:", "--overwrite"])
    run_ok("simulate", *SMALL, "-o", "e", "--overwrite")
    assert tree(workdir / "e") == tree(simulation[0])


def test_input_within_the_entry_is_not_replaced(simulation, workdir):
    run_ok("simulate", *SMALL, "-o", "e")
    argv = ["simulate", "e/model.cif", "-o", "e", "--overwrite", *SMALL[3:]]
    assert_refused(workdir, *argv, names=["e:", "replace the folder of the input e/model.cif"])


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (["--resolution", 3.9], ["Nyquist", "3.9"]),
        (["--resolution", 60], ["60", "box of 32 voxels"]),
        (["--box", 12], ["box of at least", "12"]),
        (["--voxel-size", 0.01], ["voxel size", "0.01"]),
        (["--voxel-size", -1], ["--voxel-size", "-1"]),
        (["--resolution", "nan"], ["--resolution", "nan"]),
        (["--seed", -1], ["seed", "-1"]),
        (["--residues", 3], ["residues", "3"]),
        (["--unevenness", 9], ["unevenness", "9"]),
        (["--b-factor", 5000], ["B-factor", "5000"]),
        (["--flexible-chains", "A,nobody"], ["nobody"]),
        (["--flexible-chains", "A,"], ["--flexible-chains"]),
        (["--flexible", 1.5], ["fraction", "1.5"]),
        (["--belt", 0.5, "--belt-width", 2, "--belt-roughness", -1], ["belt", "-1"]),
        (["--noise-map", "nothing.mrc"], ["nothing.mrc", "no such file"]),
        (["--noise-map", "masked.mrc"], ["masked.mrc", "unmasked solvent"]),
        (["--noise-map", "noise.mrc", "--noise-until", 1], ["noise.mrc", "Nyquist"]),
        (["--noise-b-factor", 10, "--noise-power", 1], ["--noise-power", "not allowed"]),
        (["--noise-until", 5], ["--noise-until", "--noise-map"]),
        (["--belt-width", 5], ["--belt-width", "with --belt"]),
        (["--bulk-solvent-b-factor", 5], ["--bulk-solvent-b-factor", "with --bulk-solvent"]),
        (["--bulk-solvent", 1.2], ["bulk solvent", "1.2"]),
        (["--flexible-angle", 5], ["--flexible-angle", "--flexible"]),
        (["--particles", 5], ["--resolution", "--method additive or reconstruction"]),
        (["--method", "additive", "--particles", 5], ["--particles", "--method reconstruction"]),
        (["--snr", 1], ["--snr", "--method particles"]),
        (["--assembly", "1"], ["--assembly", "a model that is a file"]),
        (["--method", "magic"], ["--method", "magic"]),
        (["--method", "reconstruction", "--particles", 0], ["particle", "0"]),
        (["--method", "reconstruction", "--pose-error", -1], ["pose_error", "-1"]),
        (["--method", "reconstruction", "--defocus", 9000, 8000], ["defocus", "9000"]),
        (["--method", "reconstruction", "--no-ctf", "--voltage", 200], ["--voltage", "--no-ctf"]),
        (["--method", "reconstruction", "--unevenness", 0.2], ["--unevenness", "--method additive"]),
        (["-o", "taken"], ["taken", "exists", "--overwrite"]),
        (["-o", "no/such/place"], ["no/such", "make it first"]),
    ],
)
def test_bad_settings_are_refused(workdir, change, names):
    noise = np.random.default_rng(0).standard_normal((32, 32, 32)).astype("f4")
    write(workdir / "noise.mrc", noise, voxel=2.0)
    z = np.arange(32) - 16
    ball = z[:, None, None] ** 2 + z[:, None] ** 2 + z**2 < 64
    write(workdir / "masked.mrc", np.where(ball, 1 + 0.1 * noise, 0).astype("f4"), voxel=2.0)
    (workdir / "taken").write_text("a file")
    assert_refused(workdir, "simulate", "-o", "e", *SMALL, *change, names=names)


@pytest.mark.parametrize(
    ("name", "content", "more", "names"),
    [
        ("nothing.cif", None, [], ["nothing.cif", "no such file"]),
        ("a_folder", "folder", [], ["a_folder"]),
        ("empty.pdb", "", [], ["empty.pdb", "no atoms"]),
        ("noise.cif", bytes(range(256)), [], ["noise.cif", "atomic model"]),
        ("text.cif", "data_x\nloop_\n_a.b\n", [], ["text.cif", "atomic model"]),
        ("water.pdb", PDB.format(1, " O", 1, 0, 0, 0, "O").replace("ALA", "HOH"), [], ["water.pdb", "no atoms"]),
        ("odd.pdb", PDB.format(1, " QQ", 1, 0, 0, 0, "Qq"), [], ["odd.pdb", "element"]),
        ("good.pdb", PDB.format(1, " CA", 1, 0, 0, 0, "C"), ["--assembly", "7"], ["good.pdb", "'7'"]),
        ("good.pdb", PDB.format(1, " CA", 1, 0, 0, 0, "C"), ["--residues", 50], ["--residues", "phantom"]),
        (
            "long.pdb",
            PDB.format(1, " CA", 1, 0, 0, 0, "C") + PDB.format(2, " CA", 2, 90, 0, 0, "C"),
            [],
            ["box of at least", "model of 90 Å", "32"],
        ),
    ],
)
def test_bad_models_are_refused(workdir, name, content, more, names):
    if content == "folder":
        (workdir / name).mkdir()
    elif content is not None:
        (workdir / name).write_bytes(content.encode() if isinstance(content, str) else content)
    assert_refused(workdir, "simulate", name, "-o", "e", *SMALL[3:], *more, names=names)


def test_defaults_in_the_help_are_in_effect():
    parser = cli.make_parser("simulate")
    command = parser._subparsers._group_actions[0].choices["simulate"]
    defaults = {}
    for action in command._actions:
        before, _, after = (action.help or "").partition("(default: ")
        if after and before and action.default in (None, argparse.SUPPRESS):
            defaults[action.dest] = after.rstrip(")")
    needed = ["phantom", "-o", "e", "--voxel-size", "2", "--resolution", "6"]
    arguments = parser.parse_args(["simulate", *needed, "--belt", "0.5", "--flexible", "0.3"])
    settings = simulate.config_from(arguments)
    plain = SimulationConfig(2.0, 6.0)
    assert (settings.belt, settings.flexible) == (Belt(strength=0.5), Flexible(fraction=0.3))
    expected = {name: getattr(plain, name) for name in ("seed", "margin", "b_factor", "unevenness", "refinements")}
    expected |= {f"belt_{name}": value for name, value in vars(Belt()).items() if name != "strength"}
    expected |= {f"flexible_{name}": getattr(Flexible(), name) for name in ("angle", "b_factor")}
    expected |= {"bulk_solvent_b_factor": BulkSolvent().b_factor}
    expected |= {"particles": Particles().count, "preferred_views": Particles().preferred}
    expected |= {name: getattr(Particles(), name) for name in ("pose_error", "shift_error")}
    optics = CtfParameters()._asdict()
    expected |= {name: optics[name] for name in ("voltage", "spherical_aberration", "amplitude_contrast")}
    assert {name: float(defaults[name]) for name in expected} == expected
    assert defaults["defocus"] == f"{optics['defocus_min']:g} {optics['defocus_max']:g}"
    assert defaults["residues"] == "200"
    assert settings.method == plain.method


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_imports_no_heavy_module(command):
    code = "import sys; from crefjax.cli.main import main; main(sys.argv[1:]); "
    code += "sys.exit(bool({'jax', 'numpy', 'matplotlib'} & set(sys.modules)))"
    words = [sys.executable, "-c", code, command, "--help"]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert run.stdout.startswith(f"usage: crefjax {command}")
    assert command != "simulate" or "--pose-error" in run.stdout


def test_particles_are_written_for_relion(workdir):
    words = ["simulate", *SMALL, "-o", "p", "--particles", 5, "--snr", 0.5, "--shift", 2, "--defocus", 9000, 9500]
    words = [word for word in words if word not in ("--resolution", 6)]
    run_ok(*words)
    report = json.loads((workdir / "p" / "particles.json").read_text())
    parameters = report["parameters"]
    assert parameters["particles"]["count"] == 5
    assert report["model_options"] == {"residues": 60}
    assert parameters["particles"]["shift_error"] == 2
    assert (workdir / "p" / "particles.mrcs").stat().st_size == 1024 + 5 * 4 * 32**2
    assert_refused(workdir, *words, names=["p:", "exists", "--overwrite"])
    run_ok(*words, "--overwrite")
