"""Most of the time of a tiny training is compiling: done roughly, and what is compiled once is taken from disk."""

from contextlib import contextmanager

import jax
from jax.experimental.compilation_cache import compilation_cache


@contextmanager
def quick_compiling(folder):
    """Compiles with few optimizations and keeps the programs in a folder; gives the environment for processes."""
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,
    }
    with compiling(settings):
        yield {name.upper(): str(value) for name, value in settings.items()}


@contextmanager
def compiling(settings):
    """Compiles with these settings of JAX."""
    before = {name: jax.config.values[name] for name in settings}
    _set(settings)
    try:
        yield
    finally:
        _set(before)


def _set(settings):
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
