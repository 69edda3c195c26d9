"""Connect to S3. boto3 decides region, endpoint, authorities, proxy and credentials for all clients.

obstore and pyreqwest read other environment variables than boto3, by other rules, so they get boto3's decisions. A test
compares the host, the headers and the trusted authorities of all clients.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.clients.aws_session import open_aws_session
from worker.config.proxy import check_proxy
from worker.config.settings import SettingsError

EXPRESS = "s3express"
"""The service name in signatures of requests to S3 Express."""
_ANY_KEY = "x"
_NO_CHECKSUM = dict.fromkeys(("request_checksum_calculation", "response_checksum_validation"), "when_required")
_SIGNED_FOR = re.compile(r"Credential=[^/]+/[0-9]{8}/([^/]+)/([^/]+)/aws4_request")


@dataclass(frozen=True, slots=True)
class S3Endpoint:
    """How to reach the objects of a bucket.

    Attributes:
        url: base URL of the bucket, without a slash at its end.
        region: region that requests are signed for.
        service: service that requests are signed for: ``s3``, or ``s3express`` for a directory bucket.
        proxy: URL of the proxy; None if requests go there directly.
    """

    url: str
    region: str
    service: str
    proxy: str | None


@dataclass(frozen=True, slots=True)
class S3Connection:
    """boto3's client of S3, and its decisions for the other clients.

    Attributes:
        client: boto3's client.
        session: boto3's session, which has the credentials.
        ca_bundle: file with the authorities to trust; None if boto3 uses its own.
    """

    client: Any
    session: Any
    ca_bundle: str | None

    def resolve(self, bucket: str) -> S3Endpoint:
        """Return how to reach the objects of a bucket; nothing is sent.

        Raises:
            SettingsError: there is no such endpoint, or the environment names something other than an HTTP proxy.
        """
        request = _prepare_request(self.client, bucket)
        url = str(request.url).removesuffix(f"/{_ANY_KEY}")
        signed_for = _SIGNED_FOR.search(str(request.headers["Authorization"]))
        if signed_for is None:
            raise SettingsError(("requests to S3 are not signed by AWS4; remove signature_version from ~/.aws/config",))
        if signed_for[2] == EXPRESS and "-fips-" in url:
            # obstore requests its sessions from the standard endpoint, not from the FIPS one.
            raise SettingsError(("DOCV_ARCHIVE_URL: S3 Express cannot be used with AWS_USE_FIPS_ENDPOINT",))
        return S3Endpoint(url, signed_for[1], signed_for[2], _find_proxy(url))


def connect_s3(endpoint: str | None, checksum: str = "header", at_once: int = 10) -> S3Connection:
    """Return boto3's client of S3, which retries failed calls, and its decisions.

    Args:
        endpoint: URL of an S3 other than Amazon's.
        checksum: ``off`` to send a checksum only if S3 requires one.
        at_once: maximum number of concurrent calls.

    Raises:
        SettingsError: there are no credentials, or the credentials or the authorities cannot be used.
        ServiceUnavailable: a service that provides credentials does not answer.
    """
    import botocore.session  # noqa: PLC0415  # takes 0.2 s, and an archive in a folder does not need it
    from botocore.config import Config  # noqa: PLC0415

    session = botocore.session.Session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_time)
    opened = open_aws_session(session)
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=at_once,
        retries={"mode": "standard", "total_max_attempts": 4},
        **(_NO_CHECKSUM if checksum == "off" else {}),
        # boto3 would request a session from S3 Express for each bucket, and no other client could use it.
        s3={"disable_s3_express_session_auth": True, **({"addressing_style": "path"} if endpoint else {})},
    )
    with _translate_errors():
        client = opened.client("s3", endpoint_url=endpoint, config=config)
    return S3Connection(client, opened, session.get_config_variable("ca_bundle"))


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        yield
    except (BotoCoreError, ValueError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        why = f"no endpoint of S3 matches the settings of AWS ({said}); check the variables AWS_... and ~/.aws/config"
        raise SettingsError((why,)) from None


def _prepare_request(client: Any, bucket: str) -> Any:
    """Return the request that boto3 would send for an object.

    A presigned URL is not enough, because in AWS's main partition it names the global endpoint instead of the regional
    one.
    """
    from botocore.awsrequest import AWSResponse  # noqa: PLC0415
    from urllib3 import HTTPResponse  # noqa: PLC0415

    requests = []

    def answer(request: Any, **_: Any) -> Any:
        requests.append(request)
        return AWSResponse(request.url, 200, {}, HTTPResponse(io.BytesIO(), preload_content=False))

    event = "before-send.s3.HeadObject"
    client.meta.events.register_first(event, answer)
    try:
        with _translate_errors():
            client.head_object(Bucket=bucket, Key=_ANY_KEY)
    finally:
        client.meta.events.unregister(event, answer)
    return requests[0]


def _find_proxy(url: str) -> str | None:
    from botocore.utils import get_environ_proxies  # noqa: PLC0415

    named = get_environ_proxies(url).get(url.partition(":")[0])
    try:
        return check_proxy(named) if named else None
    except ValueError as error:
        raise SettingsError((f"HTTPS_PROXY or HTTP_PROXY: {error}",)) from None


def _parse_time(text: Any) -> datetime:
    """Parse a time of S3. botocore's parser tries several formats, which takes most of the time of a listing."""
    from botocore.utils import parse_timestamp  # noqa: PLC0415

    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        # Headers use the format of HTTP.
        return parse_timestamp(text)  # type: ignore[no-any-return]
