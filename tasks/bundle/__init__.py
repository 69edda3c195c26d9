"""Check and unpack the bundle (ZIP) of an evaluation, and identify its documents."""
