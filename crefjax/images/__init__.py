"""Particle images and micrographs: stacks of noisy 2D images, simulated, measured, and denoised.

An image is a map of one section: wherever the code for 3D maps takes `(z, y, x)`, an image is `(1, y, x)`, and its
shells are rings. Losses, FSC (here a Fourier ring correlation), variances per shell, networks, and the training loop
are therefore those of maps.
"""
