"""Define the log events and trace spans of an evaluation."""
