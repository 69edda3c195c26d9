"""Work with bundles that could not be read: list them, copy them out, and read them again."""
