"""Trained weights: weights folders, and the import of the published crefDenoiser weights."""
