"""Answer calls about locks instead of moto, which enforces retention but does not have GetObjectRetention."""

import io
from collections.abc import Callable, Iterator
from typing import Any

from botocore.awsrequest import AWSResponse, HeadersDict


def answer_lock_requests(
    retention: dict[str, str], absent: str = "NoSuchObjectLockConfiguration"
) -> Callable[..., AWSResponse]:
    """Return a callback for boto3's ``before-send``.

    Args:
        retention: the answer of S3 by a part of the URL.
        absent: error code for every other URL.
    """

    def answer(request: Any, **_: Any) -> AWSResponse:
        body = next((found for key, found in retention.items() if key in request.url), None)
        error = f"<Error><Code>{absent}</Code></Error>"
        return AWSResponse(request.url, 200 if body else 404, HeadersDict(), _Raw((body or error).encode()))

    return answer


class _Raw(io.BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()
