"""Comparison of denoisers of images."""
