"""Read the archive back and compare it with what its manifests say; nothing is ever changed."""
