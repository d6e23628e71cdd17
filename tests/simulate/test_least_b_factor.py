"""No atom's B-factor falls below a small positive one, in the stream and in simulated entries."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.compiling import compiling

from crefjax.simulate.atoms import LEAST_B, form_factors, from_structure, plausible_b_factors, read_atoms
from crefjax.simulate.density import density, scatterers
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.simulate.phantom import phantom
from crefjax.simulate.specimen import Conformations, specimen_density
from crefjax.simulate.stream import StreamConfig
from crefjax.simulate.stream.batches import stream_half_maps
from crefjax.simulate.stream.draw import collate, draw_sample
from crefjax.simulate.stream.models import atom_table, prepare_models
from crefjax.simulate.stream.render import body_side, render_batch

PATCH, VOXEL = 16, 0.8
# The least B-factor at 2 Å; the largest that the package's own weights are trained with at 2.8 Å, sharpened.
LOWEST = StreamConfig(
    whole_map=True, b_factor=(0.0, 0.0), sharpened=1.0, voxel_size=(VOXEL, VOXEL), resolution=(2.5, 2.5)
)  # fmt: skip
HIGHEST = replace(LOWEST, b_factor=(110.0, 110.0), resolution=(3.5, 3.5))
# At the sharpest atom, over the root mean square of patch and of whole map. In 137 models it is 4 to 21; had the
# atoms kept their B-factors, up to 150, and the noise would be too weak or too strong by powers of ten.
MOST = 30


@pytest.fixture(scope="module")
def model():
    return phantom(150, seed=4)


def net_b_factors(atoms, blur):
    """What the atoms of a model of the stream are left with, Å²."""
    b_factor = plausible_b_factors(atoms).astype(np.float64)
    return np.maximum(b_factor, np.percentile(b_factor, 10)) + blur


def around_the_sharpest_atom(models, atoms, index, config):
    """A sample that has the model's sharpest atom in its middle."""
    model = models[index]
    drawn = draw_sample(models, np.eye(len(models))[index], config, PATCH, 1, 0, index)
    center = atoms[index].positions[np.argmin(atoms[index].b_factor)]
    turned = (model.positions - center) @ drawn.info.rotation.T
    near = np.flatnonzero(np.abs(turned).max(1) <= body_side(PATCH) * VOXEL)
    return drawn._replace(info=drawn.info._replace(center=center), atoms=(model.first + near).astype(np.int32))


def check_samples(models, atoms, config):
    """One sample of each model is neither infinite nor absurd."""
    samples = [around_the_sharpest_atom(models, atoms, index, config) for index in range(len(models))]
    on_device = atom_table(models)
    batch = collate(samples, len(on_device.positions) - 1)
    more = {"patch": PATCH, "extras": frozenset(), "vectorize": False, "whole_map": True}
    maps = [np.asarray(array) for array in render_batch(on_device, batch, np.uint32(0), **more)]
    half_1, half_2, mask, truth, deviation = maps
    signal = batch.info.signal
    noise = np.abs([half_1 - truth, half_2 - truth]).max((0, 2, 3, 4))
    rms = np.sqrt((mask * truth**2).sum((1, 2, 3)) / mask.sum((1, 2, 3)))
    highest = np.abs(truth).max((1, 2, 3))
    for index, (model, info_blur) in enumerate(zip(models, batch.info.b_factor, strict=True)):
        name = atoms[index].source
        assert net_b_factors(atoms[index], info_blur).min() >= LEAST_B - 1e-3, name
        # What is on the device: Gaussians of which none grows towards high frequencies.
        assert model.scatter.widths.min() + info_blur >= LEAST_B - 1e-3, name
        assert all(np.isfinite(array[index]).all() for array in maps), name
        assert 0 < highest[index] < MOST * min(rms[index], signal[index]), name
        assert 1e-3 * signal[index] < deviation[index] < 1e3 * signal[index], name
        assert noise[index] < 10 * deviation[index], name


@pytest.mark.parametrize("config", [LOWEST, HIGHEST])
@pytest.mark.parametrize("outlier", [None, 0.0])
def test_samples_of_extreme_b_factors_are_bounded(model, outlier, config):
    b_factor = np.random.default_rng(1).uniform(0, 300, len(model)).astype(np.float32)
    if outlier is not None:
        b_factor = 200 + b_factor / 3
        b_factor[len(model) // 2] = outlier
    atoms = [replace(model, b_factor=b_factor)]
    check_samples(prepare_models(atoms, VOXEL), atoms, config)


def test_samples_of_real_models_are_bounded(shared):
    files = sorted((shared / "models").glob("*/*.gz"))
    assert len(files) > 100
    atoms = [read_atoms(path) for path in files]
    assert min(each.b_factor.min() for each in atoms) == 0
    models = prepare_models(atoms, VOXEL)
    with compiling({"jax_disable_most_optimizations": False}):  # computing takes longer here than compiling
        for config in (LOWEST, HIGHEST):
            check_samples(models, atoms, config)


def test_an_outlying_b_factor_does_not_change_the_stream(model):
    """As sharp as the tenth percentile is what it is taken for."""
    b_factor = np.linspace(150, 250, len(model), dtype=np.float32)
    b_factor[40] = 0
    raised = np.maximum(b_factor, np.percentile(b_factor, 10).astype(np.float32))
    config = StreamConfig(resolution=(2.2, 3.0), b_factor=(0.0, 30.0), sharpened=1.0, whole_map=True)
    batches = [
        next(stream_half_maps([replace(model, b_factor=b)], patch=PATCH, batch=4, config=config))
        for b in (b_factor, raised)
    ]
    assert batches[0].info.b_factor.min() < -150
    for found, other in zip(*(batch[:4] for batch in batches), strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


def frequencies(side):
    k, half = np.fft.fftfreq(side, VOXEL), np.fft.rfftfreq(side, VOXEL)
    return np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + half**2)


@pytest.mark.parametrize("blur", [-60.0, -20.0, 0.0, 3.0, 40.0])
@pytest.mark.parametrize("moves", [False, True])
def test_an_atom_falls_off_by_its_net_b_factor(model, blur, moves):
    """A carbon atom alone in the box; if it moves, the floor holds for what it has without its motion."""
    side, own, extra = 32, 10.0, 30.0
    single = {name: getattr(model, name)[:1] for name in ("chain", "occupancy")}
    atom = replace(
        model,
        positions=np.full((1, 3), side // 2 * VOXEL, np.float32),
        b_factor=np.float32([own]),
        element=np.int32([6]),
        **single,
    )
    where = Conformations(np.array([moves]), atom.positions[0], np.eye(3)[None])
    found = specimen_density(atom, where, (side,) * 3, VOXEL, b_factor=blur, extra_b_factor=extra)
    s = frequencies(side)
    a, b = form_factors()[6]
    net = max(own + blur, 5.0) + extra * moves
    expected = np.exp(-(b + net) * (s[..., None] / 2) ** 2) @ a * atom.occupancy[0]
    spectrum = np.abs(np.fft.rfftn(found.astype(np.float64))) * VOXEL**3
    within = s < 0.45 / VOXEL
    np.testing.assert_allclose(spectrum[within], expected[within], rtol=0.01, atol=1e-3 * expected.max())


def test_atoms_above_the_least_b_factor_are_unchanged(model):
    shape = (48,) * 3
    atoms = replace(model, positions=model.positions - model.center + np.float32(36))
    where = Conformations(np.zeros(len(model), bool), np.zeros(3), np.eye(3)[None])
    least = float(atoms.b_factor.min())
    for blur in (LEAST_B - least, 0.0, 60.0):
        found = specimen_density(atoms, where, shape, 1.5, b_factor=blur, extra_b_factor=0.0)
        expected = density(scatterers(atoms, 1.5), shape, 1.5, b_factor=blur)
        np.testing.assert_array_equal(found, expected)


def test_half_maps_of_a_sharpened_model_are_finite_and_bounded(model):
    structure = model.structure.clone()
    for number, site in enumerate(structure[0].all()):
        site.atom.b_iso = 300 * number / len(model)
    atoms = from_structure(structure, "sharp")
    config = SimulationConfig(voxel_size=1.0, resolution=3.0, margin=6.0, b_factor=-200.0)
    simulation = simulate_half_maps(atoms, config)
    np.testing.assert_array_equal(simulation.atoms.b_factor, atoms.b_factor)  # the model is written as it was given
    inside = np.sqrt(np.sum(simulation.mask * simulation.truth**2) / simulation.mask.sum())
    assert np.isfinite(simulation.half_map_1).all()
    assert np.isfinite(simulation.half_map_2).all()
    assert np.abs(simulation.truth).max() < MOST * inside
