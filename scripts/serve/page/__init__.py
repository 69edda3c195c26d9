"""Render the operations page, and run the actions that operators start on it."""
