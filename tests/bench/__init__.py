"""Measure what docv-archive costs, next to other ways of doing the same."""
