"""Simulated half-maps whose signal is known exactly.

`half_maps` makes whole maps and entry folders, `stream` training patches, and `particles` image sets for RELION. They
start from a model (`atoms`, or a `phantom`), compute its `density` and what surrounds it (`specimen`), and add `noise`
to the map, or to images (`imaging`) that are then put together (`reconstruction`).
"""
