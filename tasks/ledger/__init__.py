"""Record every accepted evaluation in Redis until it has an outcome."""
