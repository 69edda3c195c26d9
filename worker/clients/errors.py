"""A service that is needed does not answer: one error for all of them, made for a person."""


class ServiceUnavailable(Exception):  # the name says it
    """A service that is needed does not answer as it must; the sentence says which, and how to mend it."""
