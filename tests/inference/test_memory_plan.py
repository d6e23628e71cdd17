import jax
import pytest

from crefjax.errors import UserError
from crefjax.inference.memory_plan import network_bytes, plan_run
from crefjax.models.unet3d import UNet3DConfig
from crefjax.utils import memory
from crefjax.utils.memory import GIB, find_device

CONFIG = UNet3DConfig()


def test_plan_keeps_within_the_memory_limit_by_thinner_slabs():
    device = jax.devices("cpu")[0]
    slabs = []
    for limit in (64, 2.0, 1.5, 1.35):
        plan = plan_run((256, 256, 256), CONFIG, device, host_maps=3, max_memory=limit)
        assert plan.host_bytes <= limit * GIB
        slabs.append(plan.slab)
    assert slabs == sorted(slabs, reverse=True)
    assert slabs[0] == 16
    assert slabs[-1] < 16


def test_box_that_does_not_fit_is_refused_with_its_memory():
    with pytest.raises(UserError, match=r"512x512x512 voxels needs at least \d+\.\d GiB .* found 1\.0 GiB"):
        plan_run((512, 512, 512), CONFIG, jax.devices("cpu")[0], host_maps=3, max_memory=1)


def test_memory_grows_no_faster_than_voxels():
    small, large = (network_bytes((n, n, n), CONFIG, 16, on_cpu=True) for n in (128, 256))
    assert large < 8 * small


def test_temporaries_agree_with_the_analysis_of_xla():
    """They agree within ten percent at the two levels that take most, for the default network."""
    import jax.numpy as jnp

    from crefjax.inference import slabs

    side, slab = 64, 8
    parameters = {name: {"kernel": jnp.zeros((3, 3, 3, a, b)), "bias": jnp.zeros(b)} for name, a, b in CONFIG.layers()}

    def temporaries(level):
        n, halo = side >> level, 2 * slabs._halo(CONFIG)
        planes = slabs.level_slab(side, level, slab)
        skip = jax.ShapeDtypeStruct((n + halo, n, n, CONFIG.down_width if level else 1), jnp.float32)
        up = jax.ShapeDtypeStruct((n // 2 + halo, n // 2, n // 2, CONFIG.up_width), jnp.float32)
        out = (n + halo, n, n, CONFIG.up_width) if level else (n, n, n, 1)
        arguments = (parameters, skip, up, jax.ShapeDtypeStruct(out, jnp.float32), 0, (n, planes, 1), CONFIG, level)
        analysis = slabs._up_slabs.lower(*arguments).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    measured = max(temporaries(0), temporaries(1))
    arrays = network_bytes((side,) * 3, CONFIG, slab, on_cpu=True)
    voxels = side**3
    arrays -= max(4 + 8 + 16 + 2, 4 + 16 + 4) * voxels  # box, down, up and up below
    assert arrays == pytest.approx(measured, rel=0.1)


def test_default_limit_is_the_free_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_host_memory", lambda: 1.0 * GIB)
    with pytest.raises(UserError, match="free memory"):
        plan_run((512, 512, 512), CONFIG, jax.devices("cpu")[0], host_maps=3)


def test_missing_device_is_refused():
    assert find_device("cpu").platform == "cpu"
    if not any(device.platform == "gpu" for device in jax.devices()):
        with pytest.raises(UserError, match="no such device"):
            find_device("gpu")
