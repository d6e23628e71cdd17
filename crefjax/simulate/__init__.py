"""Half-maps whose signal is known exactly, made from atomic models; `stream` makes patches to train on, without end."""
