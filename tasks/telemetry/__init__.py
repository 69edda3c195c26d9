"""Define the log events, metrics and trace spans of an evaluation."""
