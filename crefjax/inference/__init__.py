"""Networks applied to whole maps.

`request` checks what is to be denoised, `memory_plan` chooses grid, rotations, and slabs, `network` runs the network,
and `denoise` puts its output on the scale of the signal. `classify` removes noise by classification.
"""

SCALES = ("signal", "input", "none")
GRIDS = ("data", "input")
ROTATION_COUNTS = (1, 4, 24)
