"""The error for a required service that does not work."""


class ServiceUnavailable(Exception):
    """A required service does not answer correctly. The message says which one, and how to fix it."""
