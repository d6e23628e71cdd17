"""`crefjax cache`."""

from crefjax.cli.common import add_actions
from crefjax.utils.compilation_cache import LIMIT, VARIABLE, cache_state, clear_cache, measure_cache
from crefjax.utils.memory import size_text

EPILOG = (
    f"The folder is crefjax in $XDG_CACHE_HOME, or in ~/.cache. {VARIABLE} names another one; {VARIABLE}=off keeps "
    "nothing."
)
COMPILES = False


def add_arguments(parser):
    """Add the actions of `crefjax cache`."""
    add_actions(
        parser,
        ("show", _show, "show where compiled programs are kept, and how much they take"),
        ("clear", _clear, "remove all compiled programs; the next run of each command compiles again"),
    )


def run(arguments) -> None:
    """Show or clear the cache."""
    state = cache_state()
    if state.folder is None:
        print(f"no compiled programs are kept: {state.reason}")
    else:
        arguments.act(state.folder)


def _show(folder):
    count, size = measure_cache(folder)
    print(f"{folder}: {count} compiled programs, {size_text(size)} of at most {size_text(LIMIT)}")


def _clear(folder):
    count, size = clear_cache(folder)
    print(f"{folder}: removed {count} compiled programs, {size_text(size)}")
