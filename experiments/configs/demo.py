"""What `crefjax demo` trains: a small network on phantoms, without any file.

crefjax train --config=experiments/configs/demo.py --workdir=runs/demo
"""

from crefjax.training.presets import demo


def get_config():
    """As `crefjax demo` has it."""
    return demo()
