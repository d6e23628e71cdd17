"""Compiled programs kept between processes: found again, healed, bounded, and off where they cannot be kept."""

import os
import subprocess
import sys
import zlib

import pytest

from crefjax.utils import compilation_cache
from crefjax.utils.compilation_cache import bound_cache, cache_state, clear_cache, measure_cache

# Compiles one function, and prints how many programs JAX took from the cache and how many it added.
PROGRAM = """
from crefjax.utils.compilation_cache import keep_programs
keep_programs()
import collections, jax, numpy
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **more: counts.update([name.rpartition("/")[2]]))
assert jax.jit(lambda x: 2 * x + 1)(numpy.float32(3)) == 7
print(counts["cache_hits"], counts["cache_misses"])
"""


# Variables that choose a cache, some of them for all tests.
CHOICES = (
    "CREFJAX_CACHE",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "PYTHONWARNINGS",
    "XDG_CACHE_HOME",
)


def start(**variables):
    kept = {name: value for name, value in os.environ.items() if name not in CHOICES}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=kept | variables, **pipes)


def run(**variables):
    """Return the numbers of programs found and added."""
    out, err = start(**variables).communicate(timeout=100)
    assert err == ""
    return tuple(map(int, out.split()))


@pytest.fixture
def variables(monkeypatch, tmp_path):
    """The environment without a choice of a cache, but for the folder of all caches, which is temporary."""
    for name in CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return monkeypatch


def entries(folder):
    return sorted(folder.rglob("*-cache"))


def test_a_second_process_finds_the_programs_of_the_first(tmp_path):
    found, added = run(XDG_CACHE_HOME=str(tmp_path))
    assert (found, added > 0) == (0, True)
    assert run(XDG_CACHE_HOME=str(tmp_path)) == (added, 0)
    assert {path.parent.parent for path in entries(tmp_path)} == {tmp_path / "crefjax"}
    assert all(path.parent.stat().st_mode & 0o077 == 0 for path in entries(tmp_path))


def test_damaged_programs_are_compiled_again_and_replaced(tmp_path):
    _, added = run(CREFJAX_CACHE=str(tmp_path))
    for path in entries(tmp_path):
        path.write_bytes(path.read_bytes()[:50])
    assert run(CREFJAX_CACHE=str(tmp_path)) == (0, added)
    assert run(CREFJAX_CACHE=str(tmp_path)) == (added, 0)


def test_a_program_that_is_damaged_while_it_is_used_is_passed_over_in_silence(tmp_path):
    run(CREFJAX_CACHE=str(tmp_path))
    for path in entries(tmp_path):
        path.write_bytes(zlib.compress(b"not a program"))
    found, _ = run(CREFJAX_CACHE=str(tmp_path))
    assert found == 0


def test_two_processes_at_once_share_the_cache(tmp_path):
    both = [start(CREFJAX_CACHE=str(tmp_path)) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=100)
        assert (process.returncode, err) == (0, "")
        assert sum(map(int, out.split())) > 0
    assert run(CREFJAX_CACHE=str(tmp_path))[1] == 0


@pytest.mark.parametrize("value", ["off", "0"])
def test_the_variable_switches_it_off(value, tmp_path):
    assert run(CREFJAX_CACHE=value, XDG_CACHE_HOME=str(tmp_path)) == (0, 0)
    assert list(tmp_path.iterdir()) == []


def test_it_is_off_where_its_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    assert run(XDG_CACHE_HOME=str(tmp_path / "file")) == (0, 0)


def test_a_folder_chosen_for_jax_is_left_to_jax(variables, tmp_path):
    variables.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "other"))
    state = cache_state()
    assert state.folder is None
    assert str(tmp_path / "other") in state.reason


def test_the_folder_is_that_of_the_user_or_in_the_home(variables, tmp_path):
    assert cache_state().folder == tmp_path / "crefjax"
    variables.delenv("XDG_CACHE_HOME")
    variables.setenv("HOME", str(tmp_path / "home"))
    assert cache_state().folder == tmp_path / "home/.cache/crefjax"
    variables.setenv("CREFJAX_CACHE", str(tmp_path / "mine"))
    assert cache_state().folder == tmp_path / "mine"


def test_another_cpu_has_another_folder(variables, tmp_path):
    here = cache_state().own
    variables.setattr(compilation_cache.platform, "processor", lambda: "another")
    assert cache_state().own != here
    assert cache_state().own.parent == here.parent


def test_the_programs_that_were_not_used_for_longest_are_removed_beyond_the_limit(tmp_path):
    own, old = tmp_path / "jax-1.0-cpu", tmp_path / "jax-0.0-cpu"
    for folder in (own, old):
        folder.mkdir(parents=True)
    for age, path in enumerate([own / "a-cache", own / "b-cache", old / "c-cache"]):
        path.write_bytes(bytes(1000))
        os.utime(path, (1e9 - 1000 * age,) * 2)
    bound_cache(tmp_path, limit=2500)
    assert [path.name for path in entries(tmp_path)] == ["a-cache", "b-cache"]


def test_clearing_removes_the_programs_and_nothing_else(tmp_path):
    folder = tmp_path / "jax-1.0-cpu"
    folder.mkdir()
    (folder / "one-cache").write_bytes(bytes(300))
    (folder / ".checked").touch()
    (tmp_path / "notes.txt").write_text("mine")
    assert measure_cache(tmp_path) == (1, 300)
    assert clear_cache(tmp_path) == (1, 300)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
