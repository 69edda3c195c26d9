"""The work: what happens to one evaluation, one module per step, in order."""
