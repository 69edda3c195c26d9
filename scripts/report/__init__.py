"""Report the outcome of every evaluation of a run as CSV, JSON Lines or HTML."""
