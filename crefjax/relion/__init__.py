"""crefjax inside RELION: as its external reconstruction program, and as an External job."""

PROGRAM = "relion_external_reconstruct"  # RELION's own, for the classical step
# Ways to combine the denoised with the unregularized half-map, which `crefjax.relion.regularize` describes.
COMBINATIONS = ("trailing", "blend", "prior")
COARSEST = 15.0  # Å; at coarser resolutions a half-map shows no structure that the network knows
