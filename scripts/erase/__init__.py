"""A privacy request: everything of an evaluation goes, and a receipt stays."""
