"""Decide how long documents are kept: the schedule, the events that start its clocks, and when a document is due."""
