"""Responses of the stand-ins, as bytes."""

END = b"\r\n\r\n"
"""The end of the headers."""


def response(status: int, body: bytes, media_type: str, *more: str) -> bytes:
    """Return a response with further headers."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {media_type}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + END + body


NO_KEY = response(
    404, b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>Not Found</Message></Error>", "application/xml"
)
"""The answer of S3 to a request for an object that does not exist."""

CONDITION_FAILED = response(
    412, b"<?xml version='1.0'?><Error><Code>PreconditionFailed</Code><Message>No</Message></Error>", "application/xml"
)
"""The answer of S3 to a write whose condition is not met."""
