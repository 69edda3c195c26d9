"""Collect queues, holds, rates and the progress of runs for commands and the operations page."""
