"""The report on a denoised map: what in it can be trusted.

`measure` has the numbers, `checks` and `warnings` what is wrong, `figures`, `slices`, `volumes`, and `viewer` the parts
of the page, `html` the page, and `writer` the folder with all of it.
"""
