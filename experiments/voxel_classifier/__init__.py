"""Training of the weights of `crefjax classify`: simulated maps with labels, and their filter."""
