import jax
import pytest

from crefjax.errors import UserError
from crefjax.inference.memory_plan import plan_network
from crefjax.models.unet3d import UNet3DConfig
from crefjax.utils import memory
from crefjax.utils.memory import GIB, find_device

CONFIG = UNet3DConfig()


def test_plan_keeps_within_the_memory_limit_by_thinner_slabs():
    device = jax.devices("cpu")[0]
    slabs = []
    for limit in (64, 2.0, 1.5, 1.35):
        plan = plan_network((256, 256, 256), CONFIG, device, host_maps=3, max_memory=limit)
        assert plan.host_bytes <= limit * GIB
        slabs.append(plan.slab)
    assert slabs == sorted(slabs, reverse=True)
    assert slabs[0] == 16
    assert slabs[-1] < 16


def test_box_that_does_not_fit_is_refused_with_its_memory():
    with pytest.raises(UserError, match=r"512x512x512 voxels needs at least \d+\.\d GiB .* found 1\.0 GiB"):
        plan_network((512, 512, 512), CONFIG, jax.devices("cpu")[0], host_maps=3, max_memory=1)


def test_default_limit_is_the_free_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_host_memory", lambda: 1.0 * GIB)
    with pytest.raises(UserError, match="free memory"):
        plan_network((512, 512, 512), CONFIG, jax.devices("cpu")[0], host_maps=3)


def test_missing_device_is_refused():
    assert find_device("cpu").platform == "cpu"
    if not any(device.platform == "gpu" for device in jax.devices()):
        with pytest.raises(UserError, match="no such device"):
            find_device("gpu")
