"""Limit and reuse the memory for bundles and documents, and spool large ones to disk."""
