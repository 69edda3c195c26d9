"""Read the archive back, compare it with its manifests and report every difference without changing anything."""
