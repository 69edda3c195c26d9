"""A body is checked before it is used."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.serve.http.body import parse_object
from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError
from tests.scripts.serve.conftest import TOKEN, Client, event, running_client
from worker.config.settings import Settings

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def refused_status(body: bytes) -> int:
    with pytest.raises(HTTPError) as caught:
        parse_object(body, HttpLimits())
    return caught.value.status


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    """Return a body that is nested to this depth. Its own braces count."""
    return b'{"a":' + (opening * (depth - 1) + closing * (depth - 1)).encode() + b"}"


@given(value=st.dictionaries(st.text(), VALUES), escaped=st.booleans())
def test_any_json_object_is_parsed_unchanged(value: dict[str, Any], *, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    assert parse_object(text.encode(errors="surrogatepass" if escaped else "replace"), HttpLimits()) == json.loads(text)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"[]",
        b'"text"',
        b"null",
        b'{"a":1}{"b":2}',
        b'{"a":1',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":' + b"9" * 5_000 + b"}",
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":[}]',
        b'{"a":"\\',
    ],
)
def test_a_body_is_refused_when_it_is_not_a_json_object_or_repeats_a_name(body: bytes) -> None:
    assert refused_status(body) == 400


def test_a_body_is_refused_when_it_is_nested_too_deeply() -> None:
    parse_object(nested(64), HttpLimits())
    assert refused_status(nested(65)) == 400
    parse_object(b'{"a":' + b'{"b":[' * 31 + b"]}" * 31 + b"}", HttpLimits())
    assert refused_status(b'{"a":' + b'{"b":[' * 32 + b"]}" * 32 + b"}") == 400


@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b"[" * 500_000 + b"]" * 500_000, b'{"a":' * 150_000, b'"' + b'\\"' * 500_000, b"[]" * 500_000],
)
def test_a_body_that_is_expensive_to_parse_is_refused_cheaply(body: bytes) -> None:
    assert refused_status(body) == 400


def test_brackets_in_a_string_do_not_count() -> None:
    parse_object(json.dumps({"a": "[" * 500 + '\\"]}' * 3}).encode(), HttpLimits())


# -- Over the network


async def test_a_body_is_refused_when_its_length_is_too_large(client: Client) -> None:
    answer = await client.deliver(b" " * ((1 << 20) + 1))
    assert (answer.status, answer.headers["Connection"]) == (413, "close")


async def test_a_body_without_a_length_is_counted_while_it_arrives(settings: Settings) -> None:
    async with running_client(settings, HttpLimits(body_bytes=1_000)) as client:
        raw = b"".join(b"64\r\n" + b" " * 100 + b"\r\n" for _ in range(11)) + b"0\r\n\r\n"
        assert await status_of(client, raw, "Transfer-Encoding: chunked") == 413


async def test_the_largest_allowed_body_is_accepted(client: Client) -> None:
    body = json.dumps(event()).encode()
    assert (await client.deliver(body + b" " * ((1 << 20) - len(body)))).status == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip"])
async def test_a_compressed_body_is_refused(client: Client, coding: str) -> None:
    assert (await client.deliver(event(), Content_Encoding=coding)).status == 415


async def test_the_content_type_is_ignored(client: Client) -> None:
    assert (await client.deliver(event(), Content_Type="text/plain")).status == 200
    assert (await client.deliver(b"a=b", Content_Type="application/json")).status == 400


async def test_a_body_is_refused_when_it_does_not_arrive_in_time(settings: Settings) -> None:
    async with running_client(settings, HttpLimits(body_seconds=0.1)) as client:
        assert await status_of(client, b'{"event', "Content-Length: 100") == 408


async def test_a_body_with_invalid_chunks_is_refused(client: Client) -> None:
    assert await status_of(client, b"no chunk\r\n", "Transfer-Encoding: chunked") == 400


async def status_of(client: Client, body: bytes, *headers: str) -> int:
    """Send raw bytes and return the status of the answer. The server must close the connection."""
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = ["POST /webhooks/riskos HTTP/1.1", "Host: here", f"Authorization: Bearer {TOKEN}", *headers, "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1])


def test_a_byte_order_mark_before_the_object_is_ignored() -> None:
    assert parse_object(b'\xef\xbb\xbf{"a": 1}', HttpLimits()) == {"a": 1}
