"""Studies over many entries or simulations: each writes a CSV or JSON with its figure."""
