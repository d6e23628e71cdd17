"""What training and the commands need before the network: masks, and later patches of prepared maps."""
