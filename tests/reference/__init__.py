"""Slow, plain implementations that expected values come from; none imports crefjax."""
