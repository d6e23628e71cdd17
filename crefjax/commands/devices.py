"""`--device` of commands that compute with JAX's default device."""

from contextlib import AbstractContextManager, nullcontext


def on_device(kind: str | None) -> AbstractContextManager:
    """A context in which JAX computes on a device.

    Args:
        kind: `cpu`, `gpu`, or None for whatever JAX finds best.

    Raises:
        UserError: at once, if JAX has no such device.
    """
    if kind is None:
        return nullcontext()
    import jax

    from crefjax.inference.plan import find_device

    return jax.default_device(find_device(kind))
