"""The command line: `main`, and a module for each subcommand with its arguments and what it does.

Nothing heavy is imported before a command runs: `crefjax --help` answers at once.
"""
