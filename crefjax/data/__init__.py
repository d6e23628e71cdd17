"""What the network is given: masks, and patches of half-maps, prepared on the disk or cut as they are needed."""
