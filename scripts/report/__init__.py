"""Report the outcome of every evaluation of a run as CSV, JSON lines or HTML."""
