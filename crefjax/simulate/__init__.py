"""Half-maps whose signal is known exactly, made from atomic models."""

from crefjax.simulate.stream import stream as stream
