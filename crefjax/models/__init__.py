"""The network, and the convolutions it is made of."""
