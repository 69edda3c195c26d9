"""auth: say here in one sentence what this package is for."""
