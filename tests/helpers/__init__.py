"""What several tests share: maps, entries, configs, and ways to run a command."""
