"""Training configurations, benchmarks, and release tools; not part of the installed package."""
