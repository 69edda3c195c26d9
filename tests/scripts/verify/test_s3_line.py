"""Small requests to S3: what is said of each answer, and what is tried again."""

import boto3
import pytest

from scripts.verify.s3_line import opened_line
from tasks.errors import StoreFailed
from tests.riskos import Reply, Server, Then, http, s3_error, saying

NOT_NOW = s3_error(503, "SlowDown")
ABC = http(200, b"abc", headers={"ETag": '"1"'})


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")


async def asked(server: Server, *, tries: int = 3) -> bytes | None:
    """Ask for the tags of an object."""
    session = boto3.Session(region_name="eu-central-1")
    client = session.client("s3", endpoint_url=server.url)
    async with opened_line(client, session.get_credentials(), "ours", 2, waits=[0.0] * (tries - 1)) as line:
        answer = await line.ask("GET", "a b/ü", "s3:GetObjectTagging", "tagging", x_amz_checksum_mode="ENABLED")
    return answer and answer.body


async def test_an_object_is_asked_for_at_its_place_in_the_bucket() -> None:
    async with saying(ABC) as server:
        assert await asked(server) == b"abc"
    (heard,) = server.heard
    assert (heard.method, heard.path) == ("GET", "/ours/a%20b/%C3%BC?tagging")
    assert heard.headers["x-amz-checksum-mode"] == "ENABLED"
    assert "/eu-central-1/s3/aws4_request" in heard.headers["authorization"]


async def test_what_was_put_there_encoded_is_not_decoded() -> None:
    async with saying(http(200, b"no gzip", headers={"Content-Encoding": "gzip"})) as server:
        assert await asked(server) == b"no gzip"


@pytest.mark.parametrize("trouble", [NOT_NOW, s3_error(500, "InternalError"), Reply(b"", Then.RESET)])
async def test_what_s3_cannot_do_just_now_is_tried_again(trouble: Reply | bytes) -> None:
    async with saying(trouble, trouble, ABC) as server:
        assert await asked(server) == b"abc"
    assert len(server.heard) == 3


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (NOT_NOW, "SlowDown"),
        (Reply(b"", Then.RESET), "Disconnected|OSError|Reset"),
        (http(200, b"ab", promised=3)[:-1], "Timeout|Payload"),
        (s3_error(403, "AccessDenied"), r"AccessDenied.*need s3:GetObjectTagging"),
        (http(403), r"\(403\).*need s3:GetObjectTagging"),
        (s3_error(400, "ExpiredToken"), "ExpiredToken"),
        (s3_error(404, "NoSuchBucket"), "NoSuchBucket"),
        (http(301, headers={"Location": "http://127.0.0.1:1/"}), "301"),
        (http(200, b"x", headers={"Content-Length": "nonsense"}), "Error"),
    ],
)
async def test_what_it_refuses_is_a_failure_of_the_store(reply: Reply | bytes, said: str) -> None:
    shut = reply if isinstance(reply, Reply) else Reply(reply, Then.CLOSE)
    async with saying(shut) as server:
        with pytest.raises(StoreFailed, match=said) as caught:
            await asked(server, tries=2)
    assert "testing" not in str(caught.value)


@pytest.mark.parametrize("reply", [s3_error(404, "NoSuchKey"), http(404)])
async def test_what_is_not_there_is_nothing(reply: bytes) -> None:
    async with saying(reply) as server:
        assert await asked(server) is None


async def test_a_proxy_of_the_environment_is_used_unless_the_host_is_exempt(monkeypatch: pytest.MonkeyPatch) -> None:
    async with saying(ABC) as server, saying(http(200, b"by the proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert await asked(server) == b"by the proxy"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await asked(server) == b"abc"
