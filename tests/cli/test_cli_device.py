"""`--device` is applied before JAX is imported, and refused if there is no such device."""

import os
import subprocess
import sys

import jax
import pytest
from helpers.cli import assert_refused, densities, run_ok, write

from crefjax.errors import UserError

# Ends where JAX would be imported, and prints the platform that it would find.
WATCHED = """
import os, sys
from importlib.abc import MetaPathFinder

class Watch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            print(os.environ.get("JAX_PLATFORMS"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
from crefjax.cli import main as cli

sys.exit(cli.main(sys.argv[1:]))
"""
PHANTOM = ["phantom", "--residues", "40", "--voxel-size", "2.5", "--resolution", "9", "--box", "24"]


@pytest.fixture
def lines(workdir):
    """Return command lines of commands with the option."""
    maps = [str(write(workdir / f"{n}.mrc", half)) for n, half in enumerate(densities((16, 16, 16)), 1)]
    return {"fsc": ["fsc", *maps], "simulate": ["simulate", *PHANTOM, "-o", "entry"]}


@pytest.mark.parametrize("name", ["fsc", "simulate"])
@pytest.mark.parametrize(("more", "platform"), [(["--device", "cpu"], "cpu"), (["--device", "gpu"], None), ([], None)])
def test_platform_is_chosen_before_jax_is_imported(workdir, lines, name, more, platform):
    environment = {key: value for key, value in os.environ.items() if key != "JAX_PLATFORMS"}
    argv = [sys.executable, "-c", WATCHED, *lines[name], *more]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, cwd=workdir)
    assert (ended.returncode, ended.stdout) == (0, f"{platform}\n"), ended.stderr


@pytest.mark.parametrize("name", ["fsc", "simulate"])
def test_missing_gpu_is_refused(workdir, lines, name):
    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("this machine has a GPU")
    assert_refused(workdir, *lines[name], "--device", "gpu", names=["--device gpu"])
    assert_refused(workdir, *lines[name], "--device", "tpu", names=["--device", "tpu"])


def test_cpu_is_used_on_request(workdir, lines, monkeypatch):
    """There are two simulated CPU devices, of which the second is never chosen."""
    assert run_ok(*lines["fsc"], "--device", "cpu").out == run_ok(*lines["fsc"]).out
    found = []

    def where(*arguments, **more):
        found.append(jax.numpy.zeros(()).devices())
        raise UserError("that will do")

    monkeypatch.setattr("crefjax.simulate.half_maps.simulate_half_maps", where)
    with jax.default_device(jax.devices("cpu")[1]):
        assert_refused(workdir, *lines["simulate"], "--device", "cpu", names=["that will do"])
        assert_refused(workdir, *lines["simulate"], names=["that will do"])
    assert found == [{jax.devices("cpu")[0]}, {jax.devices("cpu")[1]}]
