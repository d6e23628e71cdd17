"""Studies of trained weights and training runs."""
