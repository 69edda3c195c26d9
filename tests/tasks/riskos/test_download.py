import asyncio
import gzip
import hashlib
import inspect
import os
import socket
from collections.abc import Awaitable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import start_simulator
from tasks.errors import (
    AccountRefused,
    ArchiveError,
    BundleTooLarge,
    ConnectionFailed,
    Forbidden,
    RateLimited,
    ServiceFailed,
    UnexpectedAnswer,
)
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.riskos.download import BundleHandling, DownloadOptions, _translated, download
from tasks.riskos.response import Bundle, Denial, FetchResult, NoBundle, Response, WithheldBundle
from tests.error_bodies import FORMS, GATEWAYS
from tests.riskos import (
    KEY,
    Reply,
    Server,
    Then,
    account_at,
    bundle_reply,
    http,
    json_reply,
    serve_replies,
    serve_requests,
)
from tests.zips import zip_of

EVAL_ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
OTHER_ID = "ffffffff-6e5b-4f3c-9d2a-7c1f0e8b9a10"
ZIP = zip_of({"user_uploaded/front.jpg": b"front" * 100})
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC).timestamp()


async def request(
    server: Server, options: DownloadOptions | None = None, *, api_version: str | None = None
) -> FetchResult:
    async with aiohttp.ClientSession() as session:
        account = account_at(server.url, api_version=api_version)
        return await result_of(download(session, Evaluation(EVAL_ID, "sandbox"), account, options or DownloadOptions()))


async def result_of(request: Awaitable[Response[FetchResult | Denial]]) -> FetchResult:
    result = (await request).result
    if isinstance(result, ArchiveError):
        raise result
    return result


async def answer_to(reply: Reply | bytes, *, is_withheld: bool = False, **options: Any) -> FetchResult:
    async with serve_replies(reply) as server, aiohttp.ClientSession() as session:
        evaluation, account = Evaluation(EVAL_ID, "sandbox"), account_at(server.url)
        request = download(session, evaluation, account, DownloadOptions(**options), BundleHandling(is_withheld))
        return await result_of(request)


async def error_of(reply: Reply | bytes, **options: Any) -> ArchiveError:
    with pytest.raises(ArchiveError) as caught:
        await answer_to(reply, **options)
    return caught.value


# The request


async def test_a_request_has_only_the_evaluation_the_key_and_the_user_agent() -> None:
    async with serve_replies(bundle_reply(ZIP)) as server:
        await request(server)
    (received,) = server.requests
    assert (received.method, received.path) == ("GET", f"/api/evaluation/{EVAL_ID}/documents")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["accept-encoding"] == "identity"
    assert received.headers["user-agent"] == f"docv-archive/{version('docv-archive')}"
    assert received.body == b""
    assert not {"x-api-version", "cookie"} & set(received.headers)


async def test_a_request_names_the_version_of_the_api_when_one_is_set() -> None:
    async with serve_replies(bundle_reply(ZIP)) as server:
        await request(server, api_version="2025-01-01.orion")
    assert server.requests[0].headers["x-api-version"] == "2025-01-01.orion"


# The request ID of RiskOS


@pytest.mark.parametrize(
    ("value", "request_id"),
    [
        ("0b54a4d4-6e5b", "0b54a4d4-6e5b"),
        (" a b ", "a b"),
        (b"a\xc3\xa9\xffb\x7fc", "abc"),
        ("x" * 5_000, "x" * 100),
        ("", None),
        (b"\xc3\xa9", None),
    ],
)
async def test_the_request_id_of_an_answer_is_kept_in_printable_ascii(
    value: str | bytes, request_id: str | None
) -> None:
    headers = {"X-Request-Id": value, "Content-Type": "application/zip"}
    bundle = await answer_to(http(200, ZIP, headers=headers))
    refusal = await answer_to(http(404, b'{"message": "Evaluation not found"}', headers=headers))
    assert (bundle.request_id, refusal.request_id) == (request_id, request_id)


@pytest.mark.parametrize(
    "reply",
    [
        http(200, b"<html>", headers={"X-Request-Id": "r-1"}),
        bundle_reply(ZIP, f"attachment; filename={OTHER_ID}.zip\r\nX-Request-Id: r-1"),
        http(200, b"PK\x03\x04" + bytes(1_000), headers={"X-Request-Id": "r-1"}),
        http(404, headers={"x-request-id": "r-1"}),
        http(401, headers={"X-REQUEST-ID": "r-1"}),
        http(429, headers={"X-Request-Id": "r-1"}),
        http(503, headers={"X-Request-Id": "r-1"}),
        Reply(http(200, ZIP, headers={"X-Request-Id": "r-1"})[:-50], Then.CLOSE),
    ],
)
async def test_the_request_id_of_an_error_is_kept(reply: Reply | bytes) -> None:
    assert (await error_of(reply, max_bundle_bytes=200)).request_id == "r-1"


async def test_an_error_without_an_answer_has_no_request_id() -> None:
    assert (await error_of(Reply(b"", Then.RESET))).request_id is None


# 200: a bundle


async def test_download_returns_a_bundle_with_its_bytes_name_and_hash() -> None:
    answer = await answer_to(bundle_reply(ZIP, f"attachment; filename={EVAL_ID}_document.zip"))
    assert answer == Bundle(f"{EVAL_ID}_document.zip", ZIP, hashlib.sha256(ZIP).hexdigest(), len(ZIP))


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        (None, None),
        ("attachment", None),
        ("", None),
        (";;;=;", None),
        ("attachment; filename=bundle.zip", "bundle.zip"),
        ('attachment; filename="a bundle.zip"', "a bundle.zip"),
        ('ATTACHMENT; FILENAME="bundle.zip"', "bundle.zip"),
        (f"attachment; filename={EVAL_ID.upper()}_document.zip", f"{EVAL_ID.upper()}_document.zip"),
        (f"attachment; filename*=UTF-8''{EVAL_ID}%20%C3%A9.zip", f"{EVAL_ID} é.zip"),
        (f"attachment; filename*=latin-1''{EVAL_ID}%20%E9.zip", f"{EVAL_ID} é.zip"),
        ("attachment; filename*=no-such-charset''bundle.zip", "bundle.zip"),
        ("attachment; filename*=UTF-8''%FF%FE.zip", "\ufffd\ufffd.zip"),
        (b"attachment; filename=b\xfcndel.zip", "b\ufffdndel.zip"),
        ("attachment; filename*0=bun; filename*1=dle.zip", "bundle.zip"),
        (f"attachment; filename={'n' * 5000}", "n" * 500),
    ],
)
async def test_a_bundle_may_have_any_name_or_none(disposition: str | bytes | None, filename: str | None) -> None:
    answer = await answer_to(bundle_reply(ZIP, disposition))
    assert isinstance(answer, Bundle)
    assert (answer.filename, answer.data) == (filename, ZIP)


@pytest.mark.parametrize(
    "disposition",
    [
        "attachment; filename*=idna''%FF.zip",
        "attachment; filename*=punycode''%FF.zip",
        "attachment; filename*=utf-7''%2B2AA-.zip",
        "attachment; filename*=unicode_escape''%5Cud800.zip",
    ],
)
async def test_a_bundle_is_accepted_when_its_name_has_an_absurd_encoding(disposition: str) -> None:
    answer = await answer_to(bundle_reply(ZIP, disposition))
    assert isinstance(answer, Bundle)
    assert answer.data == ZIP
    orjson.dumps(answer.filename)  # orjson refuses lone surrogates, as the manifest does


@pytest.mark.parametrize(
    "disposition",
    [
        f"attachment; filename={OTHER_ID}_document.zip",
        f"attachment; filename={OTHER_ID.upper()}_document.zip",
        f'attachment; filename="{EVAL_ID}_{OTHER_ID}.zip"',
        f"attachment; filename*=UTF-8''{OTHER_ID}.zip",
        f"inline; filename*0={OTHER_ID[:20]}; filename*1={OTHER_ID[20:]}.zip",
        f"attachment; filename={OTHER_ID.replace('-', '')}.zip",
        f"attachment; filename={OTHER_ID.replace('-', '_')}.zip",
        f"attachment; filename={EVAL_ID}.zip; filename*=UTF-8''{OTHER_ID}.zip",
        "attachment; filename==?utf-8?Q?ffffffff=2D6e5b=2D4f3c=2D9d2a=2D7c1f0e8b9a10?=",
        f"attachment; filename={EVAL_ID}.zip\r\nContent-Disposition: attachment; filename={OTHER_ID}.zip",
    ],
)
async def test_a_bundle_named_for_another_evaluation_is_unexpected(disposition: str) -> None:
    error = await error_of(bundle_reply(ZIP, disposition))
    assert isinstance(error, UnexpectedAnswer)
    assert error.status == 200
    assert OTHER_ID not in str(error).lower()


@pytest.mark.parametrize("content_type", ["application/zip", "application/octet-stream", "text/plain", "", "\\;;/"])
@pytest.mark.parametrize("padding", [b"", b"\n", b" \0\r\n"])
async def test_a_bundle_is_recognised_by_its_bytes_for_any_content_type(content_type: str, padding: bytes) -> None:
    answer = await answer_to(http(200, padding + ZIP, headers={"Content-Type": content_type}))
    assert isinstance(answer, Bundle)
    assert answer.data == padding + ZIP


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html; charset=utf-8", b"<!doctype html><title>Sign in</title>"),
        ("application/zip", b"<!doctype html><title>Sign in</title>"),
        ("application/zip", b"\r\n <html>"),
        ("application/zip", b""),
        ("application/zip", b" \n"),
        ("application/json", b'{"message": "No Documents Found"}'),
        ("application/octet-stream", b'{"message": "No Documents Found"}'),
        ("text/plain", b"try again later"),
        ("application/json", b"[]"),
    ],
)
async def test_a_page_or_a_message_with_status_200_is_unexpected(content_type: str, body: bytes) -> None:
    error = await error_of(http(200, body, headers={"Content-Type": content_type}))
    assert isinstance(error, UnexpectedAnswer)
    assert error.status == 200


async def test_any_bytes_are_a_bundle_when_their_content_type_is_zip() -> None:
    assert isinstance(await answer_to(bundle_reply(b"\x00garbage")), Bundle)


@pytest.mark.parametrize("padding", [b"", b"a comment before the bundle"])
async def test_an_empty_zip_is_a_bundle_with_and_without_padding_before_it(padding: bytes) -> None:
    assert isinstance(await answer_to(bundle_reply(padding + zip_of({}))), Bundle)


async def test_a_bundle_at_the_size_limit_is_accepted_and_one_byte_more_is_not() -> None:
    assert isinstance(await answer_to(bundle_reply(ZIP), max_bundle_bytes=len(ZIP)), Bundle)
    error = await error_of(bundle_reply(ZIP), max_bundle_bytes=len(ZIP) - 1)
    assert isinstance(error, BundleTooLarge)
    assert error.most == len(ZIP) - 1


@pytest.mark.parametrize(("status", "expected"), [(200, BundleTooLarge), (400, UnexpectedAnswer), (500, ServiceFailed)])
async def test_a_body_is_not_read_much_beyond_its_limit(status: int, expected: type[ArchiveError]) -> None:
    reply = Reply(http(status, ZIP, promised=1 << 40), Then.SEND_ENDLESSLY)
    async with serve_replies(reply) as server:
        with pytest.raises(expected):
            await request(server, DownloadOptions(max_bundle_bytes=1 << 16))
    assert server.sent < 32 << 20


async def test_the_limit_applies_to_an_encoded_bundle_after_decoding() -> None:
    bomb = gzip.compress(bytes(64 << 20), 1)
    reply = http(200, bomb, headers={"Content-Type": "application/zip", "Content-Encoding": "gzip"})
    assert isinstance(await error_of(reply, max_bundle_bytes=1 << 20), BundleTooLarge)


@pytest.mark.parametrize(("coding", "times"), [("gzip", 1), ("x-gzip", 1), ("gzip, gzip", 2)])
async def test_an_encoded_bundle_is_decoded_completely_or_refused(coding: str, times: int) -> None:
    packed = ZIP
    for _ in range(times):
        packed = gzip.compress(packed)
    headers = {"Content-Type": "application/zip", "Content-Encoding": coding}
    answer = await answer_to(http(200, packed, headers=headers))
    assert isinstance(answer, Bundle)
    assert (answer.data, answer.size) == (ZIP, len(ZIP))
    assert isinstance(await error_of(http(200, packed[:-3], headers=headers)), ConnectionFailed)


async def test_an_encoded_error_is_decoded() -> None:
    body = gzip.compress(b'{"message": "No Documents Found"}')
    answer = await answer_to(
        http(400, body, headers={"Content-Type": "application/json", "Content-Encoding": "x-gzip"})
    )
    assert isinstance(answer, NoBundle)
    assert answer.outcome is Outcome.NO_DOCUMENTS


# 400 and 404: no bundle

SHAPES = {
    "message": lambda text: {"message": text},
    "msg": lambda text: {"referenceId": "r", "msg": text},
    "nested": lambda text: {"referenceId": "r", "msg": {"status": 400, "msg": text}},
    "error": lambda text: {"error": text},
    "long": lambda text: {"error": "Bad Request", "code": "400", "message": text, "details": "d", "invalid_args": []},
    "next to a number": lambda text: {"message": "Bad Request", "msg": {"msg": 4}, "error": text},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "text", ["No Documents Found", "No Documents found", "no documents  found.", " NO\tDOCUMENTS\nFOUND ", "Gone."]
)
async def test_no_documents_is_recognised_in_every_shape_and_spelling(shape: str, text: str) -> None:
    body = orjson.dumps(SHAPES[shape](text))
    answer = await answer_to(json_reply(400, body), no_documents_texts=("No Documents Found", "gone"))
    assert answer == NoBundle(Outcome.NO_DOCUMENTS, 400, text.replace("\t", " ").replace("\n", " "))


@pytest.mark.parametrize("shape", SHAPES)
async def test_another_400_is_rejected_with_its_message(shape: str) -> None:
    text = "No Documents Found in workflow"
    answer = await answer_to(json_reply(400, orjson.dumps(SHAPES[shape](text))))
    assert answer == NoBundle(Outcome.REJECTED, 400, text)


@pytest.mark.parametrize(("body", "content_type"), FORMS.values(), ids=FORMS)
async def test_no_documents_is_recognised_in_every_form_of_body(body: bytes, content_type: str) -> None:
    answer = await answer_to(http(400, body, headers={"Content-Type": content_type}))
    assert isinstance(answer, NoBundle)
    assert (answer.outcome, answer.message) == (Outcome.NO_DOCUMENTS, "No Documents Found")


async def test_the_text_for_an_unsupported_document_type_means_no_documents() -> None:
    text = "Images not available: Document type is not supported for verification."
    answer = await answer_to(json_reply(400, orjson.dumps({"message": text})))
    assert answer == NoBundle(Outcome.NO_DOCUMENTS, 400, text)


async def test_a_body_with_a_content_encoding_is_parsed() -> None:
    body = gzip.compress(b'{"message": "No Documents Found"}')
    answer = await answer_to(json_reply(400, body, Content_Encoding="gzip"))
    assert answer == NoBundle(Outcome.NO_DOCUMENTS, 400, "No Documents Found")


@pytest.mark.parametrize("status", [400, 404])
@pytest.mark.parametrize(("body", "content_type"), GATEWAYS.values(), ids=GATEWAYS)
async def test_the_error_of_a_gateway_is_unexpected(status: int, body: bytes, content_type: str) -> None:
    error = await error_of(http(status, body, headers={"Content-Type": content_type}))
    assert isinstance(error, UnexpectedAnswer)
    assert error.status == status
    assert "Found" not in str(error)


async def test_the_error_of_another_gateway_is_unexpected_when_its_text_is_set() -> None:
    reply = json_reply(404, b'{"message": "nothing  HERE by that name."}')
    error = await error_of(reply, gateway_texts=("Nothing here by that name",))
    assert isinstance(error, UnexpectedAnswer)
    assert await answer_to(reply) == NoBundle(Outcome.NOT_FOUND, 404, "nothing  HERE by that name.")


async def test_a_message_is_cut_to_500_characters() -> None:
    answer = await answer_to(json_reply(400, orjson.dumps({"message": "m" * 60_000})))
    assert answer == NoBundle(Outcome.REJECTED, 400, "m" * 500)


async def test_a_404_is_not_found_with_its_message() -> None:
    answer = await answer_to(json_reply(404, b'{"message": "Evaluation not found"}'))
    assert answer == NoBundle(Outcome.NOT_FOUND, 404, "Evaluation not found")


async def test_no_documents_with_status_404_is_not_found() -> None:
    answer = await answer_to(json_reply(404, b'{"message": "No Documents Found"}'))
    assert answer == NoBundle(Outcome.NOT_FOUND, 404, "No Documents Found")


# The other statuses


@pytest.mark.parametrize(("status", "error"), [(401, AccountRefused), (403, Forbidden)])
async def test_a_denial_is_recognised_by_its_status_with_any_body(status: int, error: type[Exception]) -> None:
    assert isinstance(await error_of(json_reply(status, b'{"message": "No Documents Found"}')), error)


@pytest.mark.parametrize("status", [408, 425, 500, 501, 502, 503, 504, 520, 599])
@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
async def test_a_failing_service_raises_service_failed(status: int, content_type: str) -> None:
    body = b'{"message": "No Documents Found"}'
    error = await error_of(http(status, body, headers={"Content-Type": content_type}))
    assert isinstance(error, ServiceFailed)
    assert error.status == status


@pytest.mark.parametrize("status", [201, 202, 203, 206, 300, 301, 302, 303, 307, 308, 402, 405, 406, 409, 410, 413])
async def test_any_other_status_is_unexpected(status: int) -> None:
    error = await error_of(json_reply(status, b'{"message": "No Documents Found"}'))
    assert isinstance(error, UnexpectedAnswer)
    assert error.status == status


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_the_key_is_not_sent_elsewhere(status: int) -> None:
    async with serve_replies(bundle_reply(ZIP)) as elsewhere:
        reply = http(status, headers={"Location": elsewhere.url})
        async with serve_replies(reply) as server:
            with pytest.raises(UnexpectedAnswer):
                await request(server)
            to_itself = http(status, headers={"Location": server.url})
        with pytest.raises(UnexpectedAnswer):
            await answer_to(to_itself)
    assert len(server.requests) == 1
    assert elsewhere.requests == []


async def test_a_proxy_of_the_environment_receives_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve_replies(bundle_reply(ZIP)) as proxy, serve_replies(bundle_reply(ZIP)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert isinstance(await request(server), Bundle)
    assert proxy.requests == []


# 429: how long to wait


async def test_a_429_has_the_wait_of_its_headers() -> None:
    error = await error_of(json_reply(429, b'{"error": "rate_limit"}', Retry_After="17"))
    assert isinstance(error, RateLimited)
    assert error.wait == 17


async def test_a_429_with_an_impossible_date_has_the_default_wait() -> None:
    reply = json_reply(429, b"{}", Retry_After="Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
    assert isinstance(await error_of(reply), RateLimited)


# No complete response


def head(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: application/zip", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(b"", Then.CLOSE), id="nothing"),
        pytest.param(Reply(b"", Then.RESET), id="a reset"),
        pytest.param(Reply(bundle_reply(ZIP)[:20], Then.CLOSE), id="half a header"),
        pytest.param(Reply(bundle_reply(ZIP)[:-1], Then.CLOSE), id="one byte short"),
        pytest.param(Reply(bundle_reply(ZIP)[:-100], Then.RESET), id="a reset in the middle"),
        pytest.param(Reply(json_reply(400, b"{}" * 100)[:-1], Then.CLOSE), id="an error cut short"),
        pytest.param(Reply(json_reply(404, b"{}" * 100)[:-1], Then.RESET), id="an error reset"),
        pytest.param(Reply(head("Transfer-Encoding: chunked") + b"ff\r\nPK", Then.CLOSE), id="half a chunk"),
        pytest.param(Reply(head("Transfer-Encoding: chunked") + b"2\r\nPK\r\n", Then.CLOSE), id="no last chunk"),
        pytest.param(Reply(head("Transfer-Encoding: chunked") + b"zz\r\n"), id="no chunk at all"),
        pytest.param(Reply(head("Content-Length: 2", "Content-Length: 3") + b"PK3"), id="two lengths"),
        pytest.param(Reply(head("Content-Length: -2") + b"PK"), id="a negative length"),
        pytest.param(Reply(head("Content-Length: 2", "Content-Encoding: gzip") + b"PK"), id="not gzip"),
        pytest.param(Reply(head("X: " + "x" * 100_000)), id="an endless header"),
        pytest.param(Reply(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), id="not HTTP"),
        pytest.param(Reply(b"\x16\x03\x01\x00\x05\r\n\r\n"), id="TLS"),
        pytest.param(Reply(b"<html>\r\n\r\n", Then.CLOSE), id="HTTP 0.9"),
    ],
)
async def test_an_incomplete_response_is_a_failed_connection(reply: Reply) -> None:
    error = await error_of(reply)
    assert isinstance(error, ConnectionFailed)
    assert error.what != "timeout"


@pytest.mark.parametrize(
    "reply", [b"", http(200)[:10], bundle_reply(ZIP)[:-1], json_reply(400, b"{}")[:-1], json_reply(503, b"{}")[:-1]]
)
async def test_a_silent_server_is_a_timeout(reply: bytes) -> None:
    error = await error_of(Reply(reply, Then.HANG), read=0.1)
    assert isinstance(error, ConnectionFailed)
    assert error.what == "timeout"


async def test_a_slow_response_is_limited_by_the_total_time() -> None:
    async with (
        await start_simulator(SimulatorOptions(api_key=KEY, slow_seconds=600)) as simulator,
        aiohttp.ClientSession() as session,
    ):
        evaluation = Evaluation(eval_id_for(Scenario.SLOW_BODY, 1), "sandbox")
        with pytest.raises(ConnectionFailed, match="timeout"):
            await download(session, evaluation, account_at(simulator.url), DownloadOptions(total=0.3))


async def test_an_address_without_a_server_is_a_failed_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        with pytest.raises(ConnectionFailed, match="ClientConnectorError"):
            await request(Server("http://127.0.0.1:{1}".format(*taken.getsockname())))


async def test_download_can_be_cancelled() -> None:
    request_arrived = asyncio.Event()

    def hang(_: object) -> Reply:
        request_arrived.set()
        return Reply(b"", Then.HANG)

    async with serve_requests(hang) as server:
        downloading = asyncio.create_task(request(server))
        await request_arrived.wait()
        downloading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await downloading


def aiohttp_exceptions() -> Iterator[type[Exception]]:
    for _, kind in inspect.getmembers(aiohttp.client_exceptions, inspect.isclass):
        # Errors of WebSockets are left out, because the project does not use WebSockets.
        if issubclass(kind, Exception) and not kind.__name__.startswith("WS"):
            yield kind


@pytest.mark.parametrize("kind", [*aiohttp_exceptions(), OSError, ConnectionResetError, TimeoutError])
def test_every_exception_of_aiohttp_is_translated(kind: type[Exception]) -> None:
    with pytest.raises(ConnectionFailed) as caught, _translated():
        raise kind.__new__(kind)  # their constructors need arguments that a test does not have
    assert caught.value.what == ("timeout" if issubclass(kind, TimeoutError) else kind.__name__)
    assert caught.value.__suppress_context__


async def test_errors_contain_neither_the_key_nor_the_address() -> None:
    replies = [
        Reply(b"", Then.RESET),
        Reply(bundle_reply(ZIP)[:-1], Then.CLOSE),
        http(302, headers={"Location": f"https://elsewhere/{KEY}"}),
        json_reply(401, KEY.encode()),
        json_reply(429, KEY.encode()),
        json_reply(500, KEY.encode()),
        http(200, b"<" + KEY.encode(), headers={"Content-Type": "text/html"}),
    ]
    for reply in replies:
        error = await error_of(reply)
        assert KEY not in f"{error}{error!r}"
        assert "127.0.0.1" not in f"{error}{error!r}"


@pytest.mark.parametrize(("files", "documents"), [(100, 100), (20_000, None)])
async def test_the_files_of_a_withheld_bundle_are_counted_from_its_last_mebibyte(
    files: int, documents: int | None, tmp_path: Path
) -> None:
    bundle = zip_of({f"attachment-{number}": b"" for number in range(files)})
    answer = await answer_to(bundle_reply(bundle), is_withheld=True, in_memory=0, spool_dir=tmp_path)
    assert answer == WithheldBundle(len(bundle), documents)
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # the linter says that the alternative blocks


@pytest.mark.parametrize(
    "reply", [bundle_reply(b"<html>"), bundle_reply(ZIP, f"attachment; filename={OTHER_ID}.zip"), http(200)]
)
async def test_a_body_that_is_not_a_bundle_is_unexpected_when_withheld(reply: bytes) -> None:
    assert isinstance(await error_of(reply, is_withheld=True), UnexpectedAnswer)


async def test_the_limit_applies_to_a_withheld_bundle() -> None:
    assert isinstance(
        await error_of(bundle_reply(ZIP), is_withheld=True, max_bundle_bytes=len(ZIP) - 1), BundleTooLarge
    )


@pytest.mark.parametrize("status", [200, 404])
async def test_errors_contain_no_unknown_media_type(status: int) -> None:
    error = await error_of(http(status, b"<p>", headers={"Content-Type": f"text/jane-doe-{KEY}"}))
    assert isinstance(error, UnexpectedAnswer)
    assert "an unknown media type" in str(error)
    assert "jane" not in str(error)
    known = await error_of(http(status, b"<p>", headers={"Content-Type": "text/html; charset=utf-8"}))
    assert "text/html" in str(known)
