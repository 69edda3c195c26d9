"""Everything that happens to one evaluation, from its accepted ID to its manifest in the archive."""
