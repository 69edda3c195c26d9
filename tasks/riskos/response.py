"""RiskOS's response to a request: the result or the refusal, and the rate limit headers."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from tasks.errors import AccountRefused, Forbidden, RateLimited
from tasks.memory.buffer_pool import Buffer
from tasks.model.outcome import Outcome
from tasks.resilience.rate_headers import RateLimitHeaders

Denial = RateLimited | AccountRefused | Forbidden
_Result_co = TypeVar("_Result_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Response(Generic[_Result_co]):
    """RiskOS's response to one request.

    Attributes:
        result: the requested result, or a ``Denial`` for the status 429, 401 or 403.
        headers: its rate limit headers.
        sent_at: when the request was sent, in seconds of a monotonic clock.
    """

    result: _Result_co
    headers: RateLimitHeaders
    sent_at: float


@dataclass(frozen=True, slots=True)
class Bundle:
    """The ZIP as downloaded.

    Attributes:
        filename: the name that RiskOS gave it, or None.
        data: its bytes, in memory or mapped.
        sha256: their hash.
        size: number of bytes.
        request_id: RiskOS's ID of the request, or None.
    """

    filename: str | None
    data: Buffer
    sha256: str
    size: int
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class NoBundle:
    """RiskOS's answer that there is no bundle; another request would not change that.

    Attributes:
        outcome: ``no_documents``, ``not_found`` or ``rejected``.
        status: the HTTP status.
        message: RiskOS's message, cut to 500 characters.
        request_id: RiskOS's ID of the request, or None.
    """

    outcome: Outcome
    status: int
    message: str | None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class WithheldBundle:
    """A ZIP that was counted while it arrived, and not kept.

    Attributes:
        size: its bytes.
        documents: how many files its directory lists; None if the directory could not be read.
        request_id: RiskOS's ID of the request, or None.
    """

    size: int
    documents: int | None
    request_id: str | None = None


FetchResult = Bundle | WithheldBundle | NoBundle
_MEDIA_TYPES = frozenset(
    (
        *("application/zip", "application/x-zip-compressed", "application/octet-stream", "application/pdf"),
        *("application/json", "application/problem+json", "application/xml", "application/xhtml+xml"),
        *("text/html", "text/plain", "text/xml", "text/csv", "image/jpeg", "image/png", "image/gif"),
    )
)


def known_media_type(content_type: str) -> str:
    """Return a media type that is safe to log; the header comes from outside and may hold anything."""
    return content_type if content_type in _MEDIA_TYPES else "an unknown media type"
