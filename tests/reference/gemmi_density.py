"""Densities of models by gemmi's calculator."""

import gemmi
import numpy as np


def gemmi_density(structure, origin, shape, voxel_size):
    """Return the sum of the atoms' Gaussians at the voxels, `(z, y, x)`; lengths in Å."""
    moved = structure.clone()
    shift = gemmi.Transform()
    shift.vec.fromlist([-float(place) for place in origin])
    moved[0].transform_pos_and_adp(shift)
    calculator = gemmi.DensityCalculatorE()
    calculator.grid.set_size(*shape[::-1])
    calculator.grid.set_unit_cell(gemmi.UnitCell(*(np.array(shape[::-1]) * voxel_size), 90, 90, 90))
    calculator.grid.spacegroup = gemmi.SpaceGroup("P 1")
    calculator.cutoff = 1e-7
    calculator.add_model_density_to_grid(moved[0])
    return np.array(calculator.grid.array, np.float64).transpose(2, 1, 0)
