"""GetObjectRetention, which moto enforces and cannot tell: answered in its place."""

import io
from collections.abc import Callable, Iterator
from typing import Any

from botocore.awsrequest import AWSResponse, HeadersDict


def answering_retention(retention: dict[str, str]) -> Callable[..., AWSResponse]:
    """Return what boto3 is to call before it sends one; by a part of the URL, what S3 says of it."""

    def answer(request: Any, **_: Any) -> AWSResponse:
        body = next((told for key, told in retention.items() if key in request.url), None)
        none = "<Error><Code>NoSuchObjectLockConfiguration</Code></Error>"
        return AWSResponse(request.url, 200 if body else 404, HeadersDict(), _Raw((body or none).encode()))

    return answer


class _Raw(io.BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()
