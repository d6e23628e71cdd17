"""Refinements with RELION of simulated particles, with and without the denoiser as a regularizer."""
