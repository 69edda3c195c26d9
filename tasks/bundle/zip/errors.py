"""The errors of a ZIP and of its members."""


class _ZipError(Exception):
    """An error in a ZIP.

    Args:
        cause: a short fixed word.
        why: one sentence for people; it never contains the name of a member.
    """

    def __init__(self, cause: str, why: str) -> None:
        super().__init__(cause, why)
        self.cause, self.why = cause, why

    def __str__(self) -> str:
        return self.why


class BadZip(_ZipError):
    """The ZIP as a whole is damaged, ambiguous, or exceeds a limit."""


class WindowNeeded(Exception):
    """The decoders need more memory than the limits allow; no content has been read yet.

    Args:
        size: the required memory, in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class MemberError(_ZipError):
    """One member cannot be read; the others may still be readable."""
