"""All that a short time on a machine with a GPU is for, by one command; see `experiments/gpu/__main__.py`."""
