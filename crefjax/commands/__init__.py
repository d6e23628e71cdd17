"""What each subcommand does, from parsed arguments to files and lines of text."""
