"""Removes noise from cryo-EM density maps, and says shell by shell what in the result is signal, noise and bias."""

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "denoise"]


def __getattr__(name):
    # JAX takes half a second to import: `crefjax --help` should not wait for it.
    if name == "denoise":
        from crefjax.inference.denoise import denoise

        return denoise
    if name == "UserError":
        from crefjax.errors import UserError

        return UserError
    raise AttributeError(f"module 'crefjax' has no attribute {name!r}")
