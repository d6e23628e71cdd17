"""Statistics of maps per frequency shell, differentiable, for training and analysis alike."""
