"""The framework that all studies share."""
