"""Can this installation work? What is wrong, and how to mend it: one module for each thing that is examined."""
