"""Training: one loop for any task, its state, its sources of data and its records."""
