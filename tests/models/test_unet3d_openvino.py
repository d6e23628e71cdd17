"""The network computed by OpenVINO: the same output as by JAX, in bounded memory, chosen where it is installed."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from crefjax.inference.network import run_network
from crefjax.models import load_model, unet3d_openvino
from crefjax.models.unet3d import UNet3D
from crefjax.models.unet3d_config import UNet3DConfig, parameter_shapes

CONFIGS = [
    UNet3DConfig(depth=2, down_width=3, up_width=4, last_widths=(3, 2)),
    UNet3DConfig(depth=1, down_width=2, up_width=3, last_widths=(4,), negative_slope=0),
    UNet3DConfig(depth=3, down_width=2, up_width=2, last_widths=(4, 3, 2)),
    UNet3DConfig(depth=3, down_width=2, up_width=3, growth=2, last_widths=(4, 2)),
]
needs_openvino = pytest.mark.skipif(
    not unet3d_openvino.is_installed(), reason="needs OpenVINO, the extra `cpu`, which is not installed"
)


def network(config):
    """Return random parameters; with biases, planes outside the box are not zero unless they are made so."""
    random = np.random.default_rng(1)

    def draw(shape):
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]) / 2)).astype(np.float32)

    return {
        name: {key: draw(shape) for key, shape in layer.items()} for name, layer in parameter_shapes(config).items()
    }


def at_once(parameters, x, config):
    return np.asarray(jax.jit(UNet3D(config).apply)({"params": parameters}, x[None, ..., None]))[0, ..., 0]


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def noise(shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@needs_openvino
@pytest.mark.parametrize("config", CONFIGS)
def test_every_slab_size_gives_the_output_of_the_whole_network(config):
    parameters, x = network(config), noise((36, 9, 14))
    expected = at_once(parameters, x, config)
    for slab in (2, 4, 10, 64):
        found = unet3d_openvino.run(parameters, x, config, slab=slab)
        assert (found.shape, found.dtype) == (x.shape, np.float32)
        assert error(found, expected) < 1e-5


@needs_openvino
@pytest.mark.slow
def test_default_network_slab_by_slab():
    config, x = UNet3DConfig(), noise((64, 40, 33))
    parameters = network(config)
    assert error(unet3d_openvino.run(parameters, x, config, slab=8), at_once(parameters, x, config)) < 1e-5


@needs_openvino
def test_input_is_unchanged_and_progress_reaches_1():
    x, shares = noise((16, 8, 8)), []
    before = x.copy()
    unet3d_openvino.run(network(CONFIGS[0]), x, CONFIGS[0], slab=2, progress=shares.append)
    np.testing.assert_array_equal(x, before)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


@needs_openvino
def test_it_is_chosen_on_a_cpu_for_float32_unless_jax_is_asked_for(monkeypatch):
    def chosen(*, on_cpu=True, dtype="float32"):
        return load_model("unet3d").load_slabs(UNet3DConfig(compute_dtype=dtype), on_cpu=on_cpu).name

    assert chosen() == "JAX"  # as the variable says in all tests
    monkeypatch.delenv("CREFJAX_ENGINE")
    assert chosen() == "OpenVINO"
    assert chosen(on_cpu=False) == "JAX"
    assert chosen(dtype="bfloat16") == "JAX"


@needs_openvino
def test_the_function_that_runs_networks_uses_it(monkeypatch):
    config, x = CONFIGS[0], noise((16, 12, 8))
    parameters = network(config)
    by_jax = run_network(parameters, x, config, slab=4)
    monkeypatch.delenv("CREFJAX_ENGINE")
    called = []
    slabs = load_model("unet3d").load_slabs(config, on_cpu=True)
    monkeypatch.setattr(
        unet3d_openvino, "SLABS", slabs._replace(run=lambda *a, **k: called.append(1) or slabs.run(*a, **k))
    )
    assert error(run_network(parameters, x, config, slab=4), by_jax) < 1e-5
    assert called


@needs_openvino
def test_it_reports_to_nobody_and_starts_no_process():
    program = (
        "import sys, os; os.fork = None\n"
        "from crefjax.models.unet3d_openvino import import_openvino\n"
        "import_openvino(); print('openvino_telemetry' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("False\n", "")


def test_without_it_jax_computes(monkeypatch):
    monkeypatch.delenv("CREFJAX_ENGINE")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert load_model("unet3d").load_slabs(UNet3DConfig(), on_cpu=True).name == "JAX"


def test_slabs_cover_the_box_and_are_no_thinner_than_a_halo():
    for planes in range(2, 130, 2):
        for size in (2, 4, 16):
            ends = unet3d_openvino.slab_ends(planes, size, 4)
            assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]
            assert ends[-1][1] == planes
            thickness = [end - start for start, end in ends]
            assert all(n % 2 == 0 for n in thickness)
            assert len(ends) == 1 or min(thickness) >= 4
            assert max(thickness[1:-1], default=0) <= max(size, 6)


def test_a_slab_has_an_even_number_of_planes():
    with pytest.raises(ValueError, match="even number of planes, found 5"):
        unet3d_openvino.run({}, noise((16, 16, 16)), CONFIGS[0], slab=5)


def test_a_folded_kernel_is_a_transposed_convolution_of_repeated_voxels():
    random = np.random.default_rng(3)
    kernel, coarse = random.standard_normal((3, 3, 3)), random.standard_normal((4, 3, 5))
    fine = np.pad(coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2), 1)
    windows = np.lib.stride_tricks.sliding_window_view(fine, (3, 3, 3))
    expected = np.einsum("zyxabc,abc->zyx", windows, kernel)
    spread = np.zeros([2 * n + 2 for n in coarse.shape])
    folded = unet3d_openvino.fold_kernel(kernel)
    for (z, y, x), value in np.ndenumerate(coarse):
        spread[2 * z : 2 * z + 4, 2 * y : 2 * y + 4, 2 * x : 2 * x + 4] += value * folded
    np.testing.assert_allclose(spread[1:-1, 1:-1, 1:-1], expected, rtol=1e-12)


@needs_openvino
def test_kept_graphs_are_those_of_the_same_weights_and_box(monkeypatch):
    config = CONFIGS[0]
    x = noise((16, 12, 8))
    networks = [network(config), jax.tree.map(lambda a: a / 2, network(config))]
    compiled, compile_graph = [], unet3d_openvino._compile
    monkeypatch.setattr(unet3d_openvino, "_compile", lambda *a: compiled.append(1) or compile_graph(*a))
    counts, outputs = [], []
    for number in (0, 0, 1, 0):
        outputs.append(unet3d_openvino.run(networks[number], x, config, slab=4))
        counts.append(len(compiled))
        compiled.clear()
    np.testing.assert_array_equal(outputs[1], outputs[0])
    np.testing.assert_array_equal(outputs[3], outputs[0])
    assert error(outputs[2], outputs[0]) > 0.1
    assert counts[1] == 0
    assert min(counts[0], counts[2], counts[3]) > 0
    unet3d_openvino.run(networks[0], noise((24, 12, 8)), config, slab=4)
    assert compiled


@needs_openvino
def test_graphs_beyond_the_bound_on_memory_are_not_kept(monkeypatch):
    monkeypatch.setattr(unet3d_openvino, "_KEPT_BYTES", 0)
    parameters, x = network(CONFIGS[0]), noise((16, 12, 8))
    unet3d_openvino.run(parameters, x, CONFIGS[0], slab=4)
    assert unet3d_openvino._GRAPHS.requests == {}
