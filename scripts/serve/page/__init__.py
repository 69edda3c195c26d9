"""The operations page: what is under way, for a person; numbers that update by themselves, and a few buttons."""
