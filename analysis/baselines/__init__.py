"""Other methods' maps of entries, to compare with."""
