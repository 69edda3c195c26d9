"""What became of every evaluation of a run, told from the archive."""
