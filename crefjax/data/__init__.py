"""Half-maps on their way to a network: checks, working grid, specimens, patches, and datasets. No JAX."""
