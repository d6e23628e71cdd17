"""Reading and writing of density maps and of the folders that hold them. NumPy only, no JAX."""
