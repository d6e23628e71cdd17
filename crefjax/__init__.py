"""Remove noise from cryo-EM density maps, and measure signal, noise and bias of the result shell by shell."""

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "denoise"]


def __getattr__(name):
    # Importing JAX takes half a second, which `crefjax --help` does not need.
    if name == "denoise":
        from crefjax.inference.denoise import denoise

        return denoise
    if name == "UserError":
        from crefjax.errors import UserError

        return UserError
    raise AttributeError(f"module 'crefjax' has no attribute {name!r}")
