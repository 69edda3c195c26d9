"""Check and unpack the ZIP of an evaluation, and identify the documents in it."""
