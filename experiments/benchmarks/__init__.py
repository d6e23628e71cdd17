"""Measurements of speed and memory; each runs with `python -m experiments.benchmarks.<name>`."""
