"""Reading and writing of files, without JAX.

`maps` and `header` are for MRC and CCP4 files, `stacks` and `star` for images and RELION's tables, `models` for atomic
models, `entries` for folders with half-maps, masks, and models, `emdb` and `http` for downloads, and `files` for paths.
"""
