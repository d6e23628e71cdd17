"""The config of a tiny training run, as a file of Python."""

_TEXT = """
from crefjax.training.config import default


def get_config():
    c = default()
    c.batch = 2
    c.epochs = {epochs}
    c.log_every = 1
    c.network.depth = 1
    c.network.down_width = {width}
    c.network.up_width = {width}
    c.network.last_widths = ({width},)
    c.data.dataset.folder = "dataset"
    c.data.dataset.threads = {threads}
    c.checkpoint.every_steps = {every_steps}
    c.checkpoint.every_minutes = 0.0
    return c
"""


def tiny_config(*, epochs=1, width=2, threads=4, every_steps=0):
    """The text of a config that trains a network of one pooling on the folder `dataset`."""
    return _TEXT.format(epochs=epochs, width=width, threads=threads, every_steps=every_steps)
