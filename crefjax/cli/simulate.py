"""`crefjax simulate`, and what `crefjax images simulate` shares with it: tables of numbers, and the optics."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from crefjax.cli.common import add_shared, add_verbosity, number, on_device, positive
from crefjax.cli.messages import log, result, timed
from crefjax.errors import UserError
from crefjax.utils.progress import progress_bar

if TYPE_CHECKING:
    from crefjax.simulate.half_maps import Simulation, SimulationConfig


# Options that have no effect without another one.
_OF_PHANTOM = ("residues",)
_OF_FILES = ("assembly", "keep_hydrogens", "keep_waters")
_OF_ADDITIVE = ("noise_map", "noise_b_factor", "noise_power", "unevenness")
_OF_RECONSTRUCTION = ("pose_error", "shift_error", "refinements")
_OF_PARTICLES = ("snr", "shift")
_OF_CTF = ("defocus", "amplitude_contrast", "spherical_aberration", "voltage")
_OF_IMAGES = ("particles", "preferred_views", "no_ctf", *_OF_CTF)
_OF_BELT = ("belt_thickness", "belt_width", "belt_roughness", "belt_resolution")
_OF_FLEXIBLE = ("flexible_angle", "flexible_b_factor")
_DEFAULT_SNR, _DEFAULT_SHIFT = 0.05, 3.0
EPILOG = (
    "The noise level is solved so that the masked FSC of the half-maps crosses 0.143 at the given resolution. With "
    "--particles and no --method, images and their STAR file are written instead, to refine with RELION; images with "
    "realistic ice and detector, for denoisers of images, come from `crefjax images simulate`. The same seed gives the "
    "same bytes on the same CPU. Parameters are in entry.json or particles.json."
)


def add_arguments(parser):
    """Add the arguments of `crefjax simulate`."""
    parser.add_argument("model", metavar="MODEL", help="PDB or mmCIF file, also .gz; or phantom, which needs no file")
    parser.add_argument(
        "-o", "--output", metavar="ENTRY", required=True, help="folder to write: an entry, or a particle set"
    )
    add_numbers(
        parser,
        ("--voxel-size", "Å", positive, "size of a voxel, Å", None),
        ("--resolution", "Å", positive, "where the FSC of the half-maps crosses 0.143, Å", "none: images need none"),
    )
    parser.add_argument(
        "--method",
        choices=("additive", "reconstruction", "particles"),
        help="additive: add noise to the noise-free map; reconstruction: reconstruct from simulated particle images; "
        "particles: write the images, for RELION (default: additive; particles with --particles)",
    )
    parser.add_argument("--seed", metavar="N", type=int, help="random seed; does not affect the phantom (default: 0)")
    add_shared(parser, "device")
    add_verbosity(parser)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing simulated entry or particle set, with everything in it",
    )
    _add_specimen(parser.add_argument_group("specimen"))
    _add_noise(parser.add_argument_group("noise of --method additive"))
    _add_images(parser.add_argument_group("images of --method reconstruction and --method particles"))


def _add_specimen(group):
    add_numbers(
        group,
        ("--box", "N", int, "side of the cubic box, voxels", "the model and the margin"),
        ("--margin", "Å", number, "margin around the model where the box is chosen, Å", 15),
        ("--b-factor", "Å²", number, "blur of the whole signal, Å²", 60),
        ("--residues", "N", int, "size of the phantom, residues", 200),
        ("--assembly", "ID", str, "biological assembly to expand the model to, such as 1", "the model as it is"),
        ("--belt", "X", positive, "add a disordered belt, as of lipid, of X times the model's mean density", "no belt"),
        ("--belt-thickness", "Å", positive, "thickness of the belt along the model's longest axis, Å", 30),
        ("--belt-width", "Å", positive, "width of the belt, outwards from the model, Å", 20),
        ("--belt-roughness", "X", number, "standard deviation of the belt's density, relative to its mean", 0.5),
        ("--belt-resolution", "Å", positive, "resolution of the belt's random structure, Å", 10),
        ("--bulk-solvent", "X", positive, "displace solvent of X times the model's mean density", "a vacuum"),
        ("--bulk-solvent-b-factor", "Å²", number, "B-factor of the solvent's border, Å²", 100),
        ("--flexible", "X", positive, "let this fraction of the atoms, at one end of the model, move", "none moves"),
        ("--flexible-chains", "A,B", names, "let these chains move instead", "none moves"),
        ("--flexible-angle", "DEG", number, "rotation of the flexible part, root mean square, degrees", 4),
        ("--flexible-b-factor", "Å²", number, "B-factor added to the flexible part, Å²", 50),
    )
    for name in ("hydrogens", "waters"):
        group.add_argument(f"--keep-{name}", action="store_true", help=f"keep the {name} of the model")


def _add_noise(group):
    add_numbers(
        group.add_mutually_exclusive_group(),
        ("--noise-map", "MAP", str, "noise spectrum of the solvent of this unmasked map", "white"),
        (
            "--noise-b-factor",
            "Å²",
            number,
            "noise spectrum exp(-B s²/4): B above 0 blurs, below 0 sharpens, Å²",
            "white",
        ),
        ("--noise-power", "X", number, "noise power that falls as s^-X", "white"),
    )
    add_numbers(
        group,
        (
            "--noise-until",
            "Å",
            positive,
            "beyond this resolution the spectrum is level (deposited maps are low-passed), Å",
            "all",
        ),
        ("--unevenness", "X", number, "variation of the noise over the box; 0.3 changes it by about a third", 0),
    )


def _add_images(group):
    add_numbers(
        group,
        ("--particles", "N", int, "images in each half; in all with --method particles", 2000),
        ("--snr", "X", number, "variance of the images' signal over that of their noise", _DEFAULT_SNR),
        (
            "--shift",
            "Å",
            number,
            "offset of particles from the middle, standard deviation along each axis",
            _DEFAULT_SHIFT,
        ),
        (
            "--pose-error",
            "DEG",
            number,
            "error of orientations, standard deviation about each of the three axes, degrees",
            0,
        ),
        ("--shift-error", "Å", number, "error of positions, standard deviation along each of the two axes, Å", 0),
        ("--preferred-views", "X", number, "concentration of the views around z; at 5, half are within 31 degrees", 0),
        ("--refinements", "N", int, "corrections of the reconstruction for its interpolation", 1),
    )
    add_optics(group)
    group.add_argument("--no-ctf", action="store_true", help="images without a contrast transfer function")


def names(text):
    """Split names at commas."""
    names = tuple(text.split(","))
    if not all(names):
        raise ValueError
    return names


names.__name__ = "list of names between commas"


def run(arguments) -> None:
    """Simulate half-maps and write them as an entry folder, or images as a particle set."""
    from crefjax.simulate.half_maps import check_entry_folder
    from crefjax.simulate.particles import check_particle_folder

    folder, are_images = Path(arguments.output), _method(arguments) == "particles"
    inputs = [path for path in (arguments.model, arguments.noise_map) if path is not None]
    check_folder = check_particle_folder if are_images else check_entry_folder
    check_folder(folder, overwrite=arguments.overwrite, inputs=inputs)
    _check_combinations(arguments)
    with on_device(arguments.device):
        config = config_from(arguments)
        with timed("reading the model"):
            atoms, options = _model(arguments)
        make = _make_particles if are_images else _make_entry
        make(folder, atoms, config, options, arguments)


def _make_entry(folder, atoms, config, options, arguments):
    from crefjax.simulate.half_maps import write_entry

    with timed("simulating"):
        simulation = _simulate(atoms, config)
    simulation = replace(simulation, report={**simulation.report, "model_options": options})
    write_entry(folder, simulation, overwrite=arguments.overwrite)
    result("\n".join(_summary(folder, simulation)))


def _make_particles(folder, atoms, config, options, arguments):
    from crefjax.simulate.particles import simulate_particles, write_particles

    with timed("simulating"):
        particles = simulate_particles(atoms, config, _DEFAULT_SNR if arguments.snr is None else arguments.snr)
    particles = replace(particles, model_options=options)
    with timed("imaging"), progress_bar("imaging") as progress:
        write_particles(folder, particles, overwrite=arguments.overwrite, progress=progress)
    side = len(particles.specimen.truth)
    result(
        f"{atoms.source}: {len(atoms):,} atoms, {config.particles.count:,} images of {side}x{side} pixels of "
        f"{config.voxel_size:.4g} Å, signal-to-noise ratio {particles.snr:.4g}"
    )
    result(f"wrote {folder}: particles.star particles.mrcs poses.star truth.mrc mask.mrc model.cif particles.json")


def _simulate(atoms, config):
    from crefjax.simulate.half_maps import simulate_half_maps

    if config.method != "reconstruction":
        return simulate_half_maps(atoms, config)
    log(f"imaging and reconstructing 2 x {config.particles.count} particles")
    with progress_bar("reconstructing") as progress:
        return simulate_half_maps(atoms, config, progress=progress)


def config_from(arguments) -> SimulationConfig:
    """Return the configuration of a parsed command line.

    Raises:
        UserError: the noise map cannot be used, or the particles are impossible.
    """
    from crefjax.simulate.half_maps import Belt, BulkSolvent, Flexible, SimulationConfig

    own = ("voxel_size", "resolution", "seed", "box", "margin", "b_factor", "unevenness", "refinements")
    values = given(arguments, own)
    config = SimulationConfig(**values, method=_method(arguments), noise=_noise_spectrum(arguments))
    if arguments.belt is not None:
        names = {name: name.removeprefix("belt_") for name in _OF_BELT}
        config = replace(config, belt=Belt(**given(arguments, {"belt": "strength", **names})))
    if arguments.bulk_solvent is not None:
        names = {"bulk_solvent": "scale", "bulk_solvent_b_factor": "b_factor"}
        config = replace(config, bulk_solvent=BulkSolvent(**given(arguments, names)))
    if arguments.flexible is not None or arguments.flexible_chains is not None:
        names = {name: name.removeprefix("flexible_") for name in (*_OF_FLEXIBLE, "flexible_chains")}
        flexible = Flexible(**given(arguments, {"flexible": "fraction", **names}))
        config = replace(config, flexible=replace(flexible, chains=tuple(flexible.chains)))
    if config.method != "additive":
        config = replace(config, particles=_particles(arguments))
    return config


def _method(arguments):
    """Return the method: the given one, or the one that the options imply."""
    if arguments.method is not None:
        return arguments.method
    return "additive" if arguments.particles is None else "particles"


def _noise_spectrum(arguments):
    from crefjax.io.maps import read_map
    from crefjax.simulate import noise

    if arguments.noise_map is not None:
        spectrum = noise.measured_spectrum(read_map(arguments.noise_map), until=arguments.noise_until)
        until = "" if arguments.noise_until is None else f", level beyond {arguments.noise_until:g} Å"
        return replace(spectrum, name=spectrum.name + until)
    if arguments.noise_b_factor is not None:
        return noise.b_factor_spectrum(arguments.noise_b_factor)
    if arguments.noise_power is not None:
        return noise.power_law_spectrum(arguments.noise_power)
    return noise.white_spectrum()


def _particles(arguments):
    from crefjax.simulate.imaging import Particles

    names = {name: name for name in ("pose_error", "shift_error")}
    particles = Particles(**given(arguments, names | {"particles": "count", "preferred_views": "preferred"}))
    if _method(arguments) == "particles":
        particles = replace(particles, shift_error=_DEFAULT_SHIFT if arguments.shift is None else arguments.shift)
    particles = replace(particles, ctf=None if arguments.no_ctf else optics_from(arguments))
    particles.check()
    return particles


def _model(arguments):
    """Return the atoms and the options of their model, for the report."""
    from crefjax.simulate.atoms import read_atoms
    from crefjax.simulate.phantom import phantom

    if arguments.model == "phantom":
        atoms = phantom(**given(arguments, _OF_PHANTOM))
        return atoms, {"residues": sum(map(len, atoms.structure[0]))}
    options = {name: getattr(arguments, name) for name in _OF_FILES}
    return read_atoms(arguments.model, **options), options


def _check_combinations(arguments):
    """Reject options that would have no effect."""
    is_phantom, method = arguments.model == "phantom", _method(arguments)
    flexible = arguments.flexible is not None or arguments.flexible_chains is not None
    check_effective(
        arguments,
        (_OF_PHANTOM, is_phantom, "with the model phantom"),
        (_OF_FILES, not is_phantom, "with a model that is a file"),
        (_OF_ADDITIVE, method == "additive", "with --method additive"),
        (_OF_RECONSTRUCTION, method == "reconstruction", "with --method reconstruction"),
        (_OF_PARTICLES, method == "particles", "with --method particles"),
        (_OF_IMAGES, method != "additive", "with --method reconstruction or particles"),
        (("resolution",), method != "particles", "with --method additive or reconstruction"),
        (_OF_CTF, not arguments.no_ctf, "without --no-ctf"),
        (("noise_until",), arguments.noise_map is not None, "with --noise-map"),
        (_OF_BELT, arguments.belt is not None, "with --belt"),
        (("bulk_solvent_b_factor",), arguments.bulk_solvent is not None, "with --bulk-solvent"),
        (_OF_FLEXIBLE, flexible, "with --flexible or --flexible-chains"),
    )


def _summary(folder: Path, simulation: Simulation):
    report = simulation.report
    box, wanted = "x".join(map(str, report["box"])), report["parameters"]["resolution"]
    yield (
        f"{report['model']}: {report['atoms']:,} atoms in {box} voxels of {simulation.voxel_size:.4g} Å, "
        f"{report['mask_fraction']:.1%} of the box within the mask"
    )
    yield (
        f"FSC of the half-maps under the mask falls below 0.143 at {report['resolution_reached']:.2f} Å "
        f"({wanted:g} Å asked for)"
    )
    yield f"wrote {folder}: half_map_1.mrc half_map_2.mrc mask.mrc truth.mrc model.cif entry.json"
    files = [shlex.quote(str(folder / f"{name}.mrc")) for name in ("half_map_1", "half_map_2", "mask")]
    yield f"denoise it: crefjax denoise {files[0]} {files[1]} --mask {files[2]} -o denoised.mrc"


def add_numbers(group, *rows):
    """Add options by rows of name, metavar, type, help, and the library's default; required if that is None."""
    for name, metavar, kind, text, default in rows:
        text = text if default is None else f"{text} (default: {default})"
        group.add_argument(name, metavar=metavar, type=kind, required=default is None, help=text)


def given(arguments, fields: Iterable[str] | Mapping[str, str]) -> dict:
    """Return the values that the user gave, by field; other fields keep their defaults.

    Args:
        arguments: arguments of the command line.
        fields: named as their options; or fields by the names of their options.
    """
    names = fields if isinstance(fields, Mapping) else {name: name for name in fields}
    values = {field: getattr(arguments, name) for name, field in names.items()}
    return {field: value for field, value in values.items() if value is not None}


def check_effective(arguments, *rows) -> None:
    """Reject options that would have no effect.

    Args:
        arguments: arguments of the command line.
        rows: names of options, whether they have an effect, and where they would have one.

    Raises:
        UserError: one without an effect was given.
    """
    for names, effective, where in rows:
        for name in names:
            if not effective and getattr(arguments, name) not in (None, False):
                raise UserError(f"--{name.replace('_', '-')} has an effect only {where}; omit it or change that")


def add_optics(group):
    """Add the options of a microscope's contrast transfer function, which `optics_from` reads."""
    add_numbers(
        group,
        ("--voltage", "KV", positive, "acceleration voltage, kV", 300),
        ("--spherical-aberration", "MM", number, "spherical aberration, mm", 2.7),
        ("--amplitude-contrast", "X", number, "amplitude contrast, a fraction", 0.1),
    )
    group.add_argument(
        "--defocus",
        metavar=("MIN", "MAX"),
        nargs=2,
        type=number,
        help="underfocus, drawn uniformly between these, Å (default: 8000 20000)",
    )


def optics_from(arguments):
    """Return the `CtfParameters` of the options of `add_optics`."""
    from crefjax.simulate.imaging import CtfParameters

    values = given(arguments, ("voltage", "spherical_aberration", "amplitude_contrast"))
    if arguments.defocus is not None:
        values["defocus_min"], values["defocus_max"] = arguments.defocus
    return CtfParameters(**values)
