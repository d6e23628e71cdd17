"""Statistics of maps per frequency shell, for training and analysis alike.

`fsc` has the Fourier shell correlation, `curves` the same without JAX, and resolutions; `covariances` and `variances`
signal, noise, and bias with their errors; `calibration` the scale of the signal; `directional` the resolution by
direction; `local_maps` agreement and change around every voxel; `b_factors` the fall-off of maps, and sharpening;
`symmetry` point groups. `shells`, `resample`, and `windows` are their building blocks.
"""
