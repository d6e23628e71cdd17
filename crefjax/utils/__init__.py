"""Helpers without any knowledge of maps: atomic writes, progress, signals and locks, memory, worker processes."""
