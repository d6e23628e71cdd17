"""Published denoisers of 2D images, one module each: networks, losses, and task.

Each module is a task and a network of its own name: `config.task` and `config.network.name` are the module's.
"""
