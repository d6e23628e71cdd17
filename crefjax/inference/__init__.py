"""Running the network over whole maps."""
