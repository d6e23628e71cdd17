"""The command line: `main`, and a module for each subcommand with its `add_arguments` and `run`.

Heavy modules are imported only when a command runs, so that `crefjax --help` answers at once.
"""
