"""Work with bundles that could not be read: list them, get them out, and read them again."""
