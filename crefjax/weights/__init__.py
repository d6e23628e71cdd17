"""Trained weights: the folders they lie in, how they are found, and those that were published by others."""
