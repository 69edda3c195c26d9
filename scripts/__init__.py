"""The doors: every way in for a person or another system."""
