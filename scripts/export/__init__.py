"""Documents out of the archive, each checked on its way, under names that every disk takes."""
