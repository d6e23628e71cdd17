"""Training: one loop for any task, its state, sources of data, metrics, and checkpoints; and fine-tuning."""
