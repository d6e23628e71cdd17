"""`crefjax cache`, and the cache of a command in a process of its own."""

import os
import subprocess
import sys

import pytest
from helpers.cli import run_ok


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The folder of the cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CREFJAX_CACHE", str(folder))
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_a_command_keeps_its_programs_and_they_are_shown_and_cleared(pair, weights, workdir, cache):
    words = ["denoise", *pair, "-o", "out.mrc", "--weights", weights, "--scale", "input", "--verbose"]
    command = [sys.executable, "-m", "crefjax", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, env=dict(os.environ), check=True)
    assert f"compiled programs: {cache}" in ended.stderr + ended.stdout
    kept = list(cache.rglob("*-cache"))
    assert kept
    assert f"{cache}: {len(kept)} compiled programs" in run_ok("cache", "show").out
    assert f"removed {len(kept)} compiled programs" in run_ok("cache", "clear").out
    assert list(cache.iterdir()) == []
    assert "0 compiled programs" in run_ok("cache", "show").out


def test_it_says_why_nothing_is_kept(monkeypatch):
    monkeypatch.setenv("CREFJAX_CACHE", "off")
    for action in ("show", "clear"):
        assert run_ok("cache", action).out == "no compiled programs are kept: CREFJAX_CACHE is off\n"
