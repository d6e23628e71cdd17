"""Memory, progress, and interruption of a reconstruction."""

import jax
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.simulate import half_maps
from crefjax.simulate.half_maps import SimulationConfig, check_memory, simulate_half_maps
from crefjax.simulate.imaging import Particles
from crefjax.simulate.phantom import phantom
from crefjax.simulate.reconstruction import reconstruct_signal_and_noise
from crefjax.utils.memory import GIB

SIDE = 8


@pytest.fixture(scope="module")
def density():
    axis = np.arange(SIDE) - SIDE // 2
    return np.exp(-(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) / 8).astype("f4")


def test_progress_is_reported_after_every_batch(density):
    """Two halves of three batches, each seen once at full cost and in two refinements at half of it."""
    shares = []
    particles = Particles(10, ctf=None)
    reconstruct_signal_and_noise(
        density, 2.0, jax.random.key(0), particles, refinements=2, batch=4, progress=shares.append
    )
    costs = np.cumsum(2 * ([1.0] * 3 + [0.5] * 6))
    np.testing.assert_allclose(shares, costs / costs[-1])


def test_an_interruption_between_batches_propagates(density):
    """As a signal's handler does, which Python calls between two calls into XLA."""

    def interrupt(share):
        if share > 0.2:
            raise KeyboardInterrupt

    particles = Particles(10, ctf=None)
    with pytest.raises(KeyboardInterrupt):
        reconstruct_signal_and_noise(
            density, 2.0, jax.random.key(0), particles, refinements=2, batch=4, progress=interrupt
        )


def test_a_box_too_large_for_memory_raises(monkeypatch):
    """By hand: the points of half a spectrum of twice the side, with all that is there when sums become maps."""
    side, device = 400, jax.devices("cpu")[0]
    points = (2 * side) ** 2 * (side + 1)
    # five channels of sums, two complex spectra of data, one inverse; two complex products and their two transforms
    least = points * 4 * (5 + 4 + 1 + 4) + 2 * 4 * (2 * side) ** 3
    monkeypatch.setattr(half_maps, "free_memory", lambda device: float(least))
    with pytest.raises(UserError, match=r"expected 2\d\.\d GiB of memory to reconstruct a box of 400 voxels") as caught:
        check_memory(side, device)
    assert f"found {least / GIB:.1f} GiB free; use larger voxels" in str(caught.value)
    monkeypatch.setattr(half_maps, "free_memory", lambda device: 1.5 * least)
    check_memory(side, device)


def test_memory_is_checked_before_any_work(monkeypatch):
    settings = SimulationConfig(2.5, 9.0, box=32, method="reconstruction", particles=Particles(10))

    def no_work(*arguments, **more):
        raise AssertionError("work was begun")

    monkeypatch.setattr(half_maps, "free_memory", lambda device: 0.3 * GIB)
    monkeypatch.setattr(half_maps, "specimen_density", no_work)
    with pytest.raises(UserError, match=r"box of 32 voxels a side, found 0\.3 GiB free"):
        simulate_half_maps(phantom(40), settings)
    monkeypatch.setattr(half_maps, "free_memory", lambda device: 4 * GIB)
    with pytest.raises(AssertionError, match="work was begun"):
        simulate_half_maps(phantom(40), settings)
