"""Half-maps whose signal is known exactly, made from atomic models."""
