"""Notify another system by HTTP of finished runs, dead letters and differences in the archive."""
