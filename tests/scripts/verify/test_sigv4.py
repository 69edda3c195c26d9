"""Signatures equal those of botocore."""

from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials

from scripts.verify.sigv4 import SigV4Signer

HOST = "127.0.0.1:9000"


@pytest.mark.parametrize("token", [None, "a token"])
@pytest.mark.parametrize(
    ("method", "key", "query", "more"),
    [
        ("GET", "sandbox/an-id/selfie/00.jpg", "", {}),
        ("GET", "sandbox/an-id/selfie/00.jpg", "tagging", {}),
        ("GET", "", "encoding-type=url&list-type=2&prefix=a%20prefix%2F", {}),
        ("HEAD", "a prefix/ä+~(1)/x", "", {"x-amz-checksum-mode": "ENABLED"}),
    ],
)
def test_a_signature_equals_that_of_botocore(
    method: str, key: str, query: str, more: dict[str, str], token: str | None
) -> None:
    path = f"/bucket/{quote(key, safe='/-._~')}"
    frozen = ReadOnlyCredentials("an access key", "a secret", token)
    theirs = AWSRequest(method, f"http://{HOST}{path}" + (query and f"?{query}"), headers=dict(more))
    S3SigV4Auth(Credentials(*frozen[:3]), "s3", "eu-central-1").add_auth(theirs)
    at = datetime.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = SigV4Signer(lambda: frozen, "eu-central-1", HOST, lambda: at).headers(method, path, query, more)
    assert ours["authorization"] == theirs.headers["Authorization"]


def test_a_signature_changes_with_the_day_and_the_credentials() -> None:
    days = iter([datetime(2026, 11, day, tzinfo=UTC) for day in (23, 23, 24, 23)])
    credentials = iter([ReadOnlyCredentials("k", secret, None) for secret in ("a", "a", "a", "b")])
    signer = SigV4Signer(lambda: next(credentials), "eu-central-1", HOST, lambda: next(days))
    one, same, next_day, other = (signer.headers("GET", "/x", "", {})["authorization"] for _ in range(4))
    assert one == same
    assert len({one, next_day, other}) == 3
