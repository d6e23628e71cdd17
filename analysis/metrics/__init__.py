"""Studies over many entries, method by method."""
