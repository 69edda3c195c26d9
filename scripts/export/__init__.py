"""Copy documents out of the archive into a folder, a ZIP or a BagIt bag, and verify each one."""
