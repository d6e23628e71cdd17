"""Tests of crefjax's own estimates where the truth is known."""
