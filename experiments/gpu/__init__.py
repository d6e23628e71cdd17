"""Tests, benchmarks, and training in a few minutes on a GPU, by one command; see `experiments/gpu/__main__.py`."""
