import asyncio
import gzip
import hashlib
import inspect
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
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
from tasks.riskos.download import DownloadOptions, _translated, download
from tasks.riskos.response import Bundle, FetchResult, NoBundle
from tests.error_bodies import FORMS, GATEWAYS
from tests.riskos import KEY, Reply, Server, Then, account_at, http, json, listening, saying, zipped
from tests.zips import zip_of

MINE = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
ANOTHERS = "ffffffff-6e5b-4f3c-9d2a-7c1f0e8b9a10"
ZIP = zip_of({"user_uploaded/front.jpg": b"front" * 100})
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC).timestamp()


async def ask(server: Server, terms: DownloadOptions | None = None, *, api_version: str | None = None) -> FetchResult:
    async with aiohttp.ClientSession() as session:
        account = account_at(server.url, api_version=api_version)
        return await download(session, Evaluation(MINE, "sandbox"), account, terms or DownloadOptions())


async def answer_to(reply: Reply | bytes, **terms: Any) -> FetchResult:
    async with saying(reply) as server:
        return await ask(server, DownloadOptions(**terms))


async def error_of(reply: Reply | bytes, **terms: Any) -> ArchiveError:
    with pytest.raises(ArchiveError) as caught:
        await answer_to(reply, **terms)
    return caught.value


# What is asked


async def test_a_request_names_the_evaluation_and_shows_the_key_and_nothing_else_of_us() -> None:
    async with saying(zipped(ZIP)) as server:
        await ask(server)
    (heard,) = server.heard
    assert (heard.method, heard.path) == ("GET", f"/api/evaluation/{MINE}/documents")
    assert heard.headers["authorization"] == f"Bearer {KEY}"
    assert heard.headers["accept-encoding"] == "identity"
    assert heard.headers["user-agent"] == f"docv-archive/{version('docv-archive')}"
    assert heard.body == b""
    assert not {"x-api-version", "cookie"} & set(heard.headers)


async def test_a_request_names_the_version_of_the_api_where_one_is_set() -> None:
    async with saying(zipped(ZIP)) as server:
        await ask(server, api_version="2025-01-01.orion")
    assert server.heard[0].headers["x-api-version"] == "2025-01-01.orion"


# The ID that RiskOS gives the request


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
        zipped(ZIP, f"attachment; filename={ANOTHERS}.zip\r\nX-Request-Id: r-1"),
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


async def test_a_bundle_is_returned_byte_for_byte_with_its_name_and_hash() -> None:
    answer = await answer_to(zipped(ZIP, f"attachment; filename={MINE}_document.zip"))
    assert answer == Bundle(f"{MINE}_document.zip", ZIP, hashlib.sha256(ZIP).hexdigest(), len(ZIP))


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
        (f"attachment; filename={MINE.upper()}_document.zip", f"{MINE.upper()}_document.zip"),
        (f"attachment; filename*=UTF-8''{MINE}%20%C3%A9.zip", f"{MINE} é.zip"),
        (f"attachment; filename*=latin-1''{MINE}%20%E9.zip", f"{MINE} é.zip"),
        ("attachment; filename*=no-such-charset''bundle.zip", "bundle.zip"),
        ("attachment; filename*=UTF-8''%FF%FE.zip", "\ufffd\ufffd.zip"),
        (b"attachment; filename=b\xfcndel.zip", "b\ufffdndel.zip"),
        ("attachment; filename*0=bun; filename*1=dle.zip", "bundle.zip"),
        (f"attachment; filename={'n' * 5000}", "n" * 500),
    ],
)
async def test_a_bundle_may_have_any_name_or_none(disposition: str | bytes | None, filename: str | None) -> None:
    answer = await answer_to(zipped(ZIP, disposition))
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
async def test_a_name_in_an_absurd_encoding_stops_no_bundle_and_can_stand_in_a_manifest(disposition: str) -> None:
    answer = await answer_to(zipped(ZIP, disposition))
    assert isinstance(answer, Bundle)
    assert answer.data == ZIP
    orjson.dumps(answer.filename)  # refuses lone surrogates, as the manifest does


@pytest.mark.parametrize(
    "disposition",
    [
        f"attachment; filename={ANOTHERS}_document.zip",
        f"attachment; filename={ANOTHERS.upper()}_document.zip",
        f'attachment; filename="{MINE}_{ANOTHERS}.zip"',
        f"attachment; filename*=UTF-8''{ANOTHERS}.zip",
        f"inline; filename*0={ANOTHERS[:20]}; filename*1={ANOTHERS[20:]}.zip",
        f"attachment; filename={ANOTHERS.replace('-', '')}.zip",
        f"attachment; filename={ANOTHERS.replace('-', '_')}.zip",
        f"attachment; filename={MINE}.zip; filename*=UTF-8''{ANOTHERS}.zip",
        "attachment; filename==?utf-8?Q?ffffffff=2D6e5b=2D4f3c=2D9d2a=2D7c1f0e8b9a10?=",
        f"attachment; filename={MINE}.zip\r\nContent-Disposition: attachment; filename={ANOTHERS}.zip",
    ],
)
async def test_a_bundle_named_for_another_evaluation_is_never_taken(disposition: str) -> None:
    error = await error_of(zipped(ZIP, disposition))
    assert isinstance(error, UnexpectedAnswer)
    assert error.status == 200
    assert ANOTHERS not in str(error).lower()


@pytest.mark.parametrize("content_type", ["application/zip", "application/octet-stream", "text/plain", "", "\\;;/"])
async def test_a_bundle_is_known_by_its_bytes_whatever_it_is_called(content_type: str) -> None:
    answer = await answer_to(http(200, ZIP, headers={"Content-Type": content_type}))
    assert isinstance(answer, Bundle)
    assert answer.data == ZIP


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
async def test_a_page_or_a_message_with_status_200_is_no_bundle(content_type: str, body: bytes) -> None:
    error = await error_of(http(200, body, headers={"Content-Type": content_type}))
    assert isinstance(error, UnexpectedAnswer)
    assert error.status == 200


async def test_bytes_that_are_called_a_zip_are_left_to_unpack_to_judge() -> None:
    assert isinstance(await answer_to(zipped(b"\x00garbage")), Bundle)


@pytest.mark.parametrize("padding", [b"", b"a comment before the bundle"])
async def test_an_empty_zip_and_one_with_something_before_it_are_bundles(padding: bytes) -> None:
    assert isinstance(await answer_to(zipped(padding + zip_of({}))), Bundle)


async def test_a_bundle_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert isinstance(await answer_to(zipped(ZIP), max_bundle_bytes=len(ZIP)), Bundle)
    error = await error_of(zipped(ZIP), max_bundle_bytes=len(ZIP) - 1)
    assert isinstance(error, BundleTooLarge)
    assert error.most == len(ZIP) - 1


@pytest.mark.parametrize(("status", "ends_in"), [(200, BundleTooLarge), (400, UnexpectedAnswer), (500, ServiceFailed)])
async def test_no_body_is_read_much_further_than_its_limit(status: int, ends_in: type[ArchiveError]) -> None:
    reply = Reply(http(status, ZIP, promised=1 << 40), Then.GO_ON)
    async with saying(reply) as server:
        with pytest.raises(ends_in):
            await ask(server, DownloadOptions(max_bundle_bytes=1 << 16))
    assert server.sent < 32 << 20


async def test_a_bundle_that_is_packed_once_more_on_the_way_is_bound_by_the_limit_as_well() -> None:
    bomb = gzip.compress(bytes(64 << 20), 1)
    reply = http(200, bomb, headers={"Content-Type": "application/zip", "Content-Encoding": "gzip"})
    assert isinstance(await error_of(reply, max_bundle_bytes=1 << 20), BundleTooLarge)


# 400 and 404: there is none

SHAPES = {
    "message": lambda text: {"message": text},
    "msg": lambda text: {"referenceId": "r", "msg": text},
    "nested": lambda text: {"referenceId": "r", "msg": {"status": 400, "msg": text}},
    "error": lambda text: {"error": text},
    "long": lambda text: {"error": "Bad Request", "code": "400", "message": text, "details": "d", "invalid_args": []},
    "buried": lambda text: {"message": "Bad Request", "msg": {"msg": 4}, "error": text},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "text", ["No Documents Found", "No Documents found", "no documents  found.", " NO\tDOCUMENTS\nFOUND ", "Gone."]
)
async def test_no_documents_is_understood_in_every_shape_and_spelling(shape: str, text: str) -> None:
    body = orjson.dumps(SHAPES[shape](text))
    answer = await answer_to(json(400, body), no_documents_texts=("No Documents Found", "gone"))
    assert answer == NoBundle(Outcome.NO_DOCUMENTS, 400, text.replace("\t", " ").replace("\n", " "))


@pytest.mark.parametrize("shape", SHAPES)
async def test_another_400_is_rejected_with_what_was_said(shape: str) -> None:
    text = "No Documents Found in workflow"
    answer = await answer_to(json(400, orjson.dumps(SHAPES[shape](text))))
    assert answer == NoBundle(Outcome.REJECTED, 400, text)


@pytest.mark.parametrize(("body", "content_type"), FORMS.values(), ids=FORMS)
async def test_no_documents_is_understood_in_every_form_of_body(body: bytes, content_type: str) -> None:
    answer = await answer_to(http(400, body, headers={"Content-Type": content_type}))
    assert isinstance(answer, NoBundle)
    assert (answer.outcome, answer.message) == (Outcome.NO_DOCUMENTS, "No Documents Found")


async def test_the_second_text_means_no_documents_as_well() -> None:
    text = "Images not available: Document type is not supported for verification."
    answer = await answer_to(json(400, orjson.dumps({"message": text})))
    assert answer == NoBundle(Outcome.NO_DOCUMENTS, 400, text)


async def test_a_body_that_aiohttp_unpacks_is_understood() -> None:
    body = gzip.compress(b'{"message": "No Documents Found"}')
    answer = await answer_to(json(400, body, Content_Encoding="gzip"))
    assert answer == NoBundle(Outcome.NO_DOCUMENTS, 400, "No Documents Found")


@pytest.mark.parametrize("status", [400, 404])
@pytest.mark.parametrize(("body", "content_type"), GATEWAYS.values(), ids=GATEWAYS)
async def test_the_answer_of_something_in_between_ends_no_evaluation(
    status: int, body: bytes, content_type: str
) -> None:
    error = await error_of(http(status, body, headers={"Content-Type": content_type}))
    assert isinstance(error, UnexpectedAnswer)
    assert error.status == status
    assert "Found" not in str(error)


async def test_a_sentence_of_another_gateway_can_be_set() -> None:
    reply = json(404, b'{"message": "nothing  HERE by that name."}')
    error = await error_of(reply, gateway_texts=("Nothing here by that name",))
    assert isinstance(error, UnexpectedAnswer)
    assert await answer_to(reply) == NoBundle(Outcome.NOT_FOUND, 404, "nothing  HERE by that name.")


async def test_a_message_is_cut() -> None:
    answer = await answer_to(json(400, orjson.dumps({"message": "m" * 60_000})))
    assert answer == NoBundle(Outcome.REJECTED, 400, "m" * 500)


async def test_a_404_is_not_found_with_what_was_said() -> None:
    answer = await answer_to(json(404, b'{"message": "Evaluation not found"}'))
    assert answer == NoBundle(Outcome.NOT_FOUND, 404, "Evaluation not found")


async def test_no_documents_said_with_404_is_not_found() -> None:
    answer = await answer_to(json(404, b'{"message": "No Documents Found"}'))
    assert answer == NoBundle(Outcome.NOT_FOUND, 404, "No Documents Found")


# The other statuses


@pytest.mark.parametrize(("status", "error"), [(401, AccountRefused), (403, Forbidden)])
async def test_a_refusal_is_no_answer_whatever_its_body_says(status: int, error: type[Exception]) -> None:
    assert isinstance(await error_of(json(status, b'{"message": "No Documents Found"}')), error)


@pytest.mark.parametrize("status", [408, 425, 500, 501, 502, 503, 504, 520, 599])
@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
async def test_a_failing_service_may_be_asked_again(status: int, content_type: str) -> None:
    body = b'{"message": "No Documents Found"}'
    error = await error_of(http(status, body, headers={"Content-Type": content_type}))
    assert isinstance(error, ServiceFailed)
    assert error.status == status


@pytest.mark.parametrize("status", [201, 202, 203, 206, 300, 301, 302, 303, 307, 308, 402, 405, 406, 409, 410, 413])
async def test_any_other_status_is_unexpected_and_never_the_end_of_an_evaluation(status: int) -> None:
    error = await error_of(json(status, b'{"message": "No Documents Found"}'))
    assert isinstance(error, UnexpectedAnswer)
    assert error.status == status


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_the_key_goes_nowhere_else(status: int) -> None:
    async with saying(zipped(ZIP)) as elsewhere:
        reply = http(status, headers={"Location": elsewhere.url})
        async with saying(reply) as server:
            with pytest.raises(UnexpectedAnswer):
                await ask(server)
            to_itself = http(status, headers={"Location": server.url})
        with pytest.raises(UnexpectedAnswer):
            await answer_to(to_itself)
    assert len(server.heard) == 1
    assert elsewhere.heard == []


async def test_a_proxy_of_the_environment_never_sees_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async with saying(zipped(ZIP)) as proxy, saying(zipped(ZIP)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert isinstance(await ask(server), Bundle)
    assert proxy.heard == []


# 429: how long to wait


async def test_a_429_carries_the_wait_that_was_asked_for() -> None:
    error = await error_of(json(429, b'{"error": "rate_limit"}', Retry_After="17"))
    assert isinstance(error, RateLimited)
    assert error.wait == 17


async def test_an_impossible_date_is_a_429_like_any_other() -> None:
    reply = json(429, b"{}", Retry_After="Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
    assert isinstance(await error_of(reply), RateLimited)


# No whole answer


def head(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: application/zip", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(b"", Then.CLOSE), id="nothing"),
        pytest.param(Reply(b"", Then.RESET), id="a reset"),
        pytest.param(Reply(zipped(ZIP)[:20], Then.CLOSE), id="half a header"),
        pytest.param(Reply(zipped(ZIP)[:-1], Then.CLOSE), id="one byte short"),
        pytest.param(Reply(zipped(ZIP)[:-100], Then.RESET), id="a reset in the middle"),
        pytest.param(Reply(json(400, b"{}" * 100)[:-1], Then.CLOSE), id="an error cut short"),
        pytest.param(Reply(json(404, b"{}" * 100)[:-1], Then.RESET), id="an error reset"),
        pytest.param(Reply(head("Transfer-Encoding: chunked") + b"ff\r\nPK", Then.CLOSE), id="half a chunk"),
        pytest.param(Reply(head("Transfer-Encoding: chunked") + b"2\r\nPK\r\n", Then.CLOSE), id="no last chunk"),
        pytest.param(Reply(head("Transfer-Encoding: chunked") + b"zz\r\n"), id="no chunk at all"),
        pytest.param(Reply(head("Content-Length: 2", "Content-Length: 3") + b"PK3"), id="two lengths"),
        pytest.param(Reply(head("Content-Length: -2") + b"PK"), id="a negative length"),
        pytest.param(Reply(head("Content-Length: 2", "Content-Encoding: gzip") + b"PK"), id="no gzip"),
        pytest.param(Reply(head("X: " + "x" * 100_000)), id="an endless header"),
        pytest.param(Reply(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), id="not HTTP"),
        pytest.param(Reply(b"\x16\x03\x01\x00\x05\r\n\r\n"), id="TLS"),
        pytest.param(Reply(b"<html>\r\n\r\n", Then.CLOSE), id="HTTP 0.9"),
    ],
)
async def test_an_answer_that_is_not_whole_is_a_failed_connection(reply: Reply) -> None:
    error = await error_of(reply)
    assert isinstance(error, ConnectionFailed)
    assert error.what != "timeout"


@pytest.mark.parametrize("reply", [b"", http(200)[:10], zipped(ZIP)[:-1], json(400, b"{}")[:-1], json(503, b"{}")[:-1]])
async def test_silence_ends_in_a_timeout(reply: bytes) -> None:
    error = await error_of(Reply(reply, Then.HANG), read=0.1)
    assert isinstance(error, ConnectionFailed)
    assert error.what == "timeout"


async def test_an_answer_that_dribbles_for_ever_is_bound_by_the_total_time() -> None:
    async with (
        await start_simulator(SimulatorOptions(api_key=KEY, slow_seconds=600)) as simulator,
        aiohttp.ClientSession() as session,
    ):
        evaluation = Evaluation(eval_id_for(Scenario.SLOW_BODY, 1), "sandbox")
        with pytest.raises(ConnectionFailed, match="timeout"):
            await download(session, evaluation, account_at(simulator.url), DownloadOptions(total=0.3))


async def test_an_address_where_nobody_listens_is_a_failed_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        with pytest.raises(ConnectionFailed, match="ClientConnectorError"):
            await ask(Server("http://127.0.0.1:{1}".format(*taken.getsockname())))


async def test_cancelling_a_download_cancels_it() -> None:
    heard = asyncio.Event()

    def hang(_: object) -> Reply:
        heard.set()
        return Reply(b"", Then.HANG)

    async with listening(hang) as server:
        asking = asyncio.create_task(ask(server))
        await heard.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


def aiohttp_exceptions() -> Iterator[type[Exception]]:
    for _, kind in inspect.getmembers(aiohttp.client_exceptions, inspect.isclass):
        # WebSockets are the one thing of this module that we have no use for.
        if issubclass(kind, Exception) and not kind.__name__.startswith("WS"):
            yield kind


@pytest.mark.parametrize("kind", [*aiohttp_exceptions(), OSError, ConnectionResetError, TimeoutError])
def test_every_exception_of_the_client_becomes_one_of_ours(kind: type[Exception]) -> None:
    with pytest.raises(ConnectionFailed) as caught, _translated():
        raise kind.__new__(kind)  # their constructors want what a test does not have
    assert caught.value.what == ("timeout" if issubclass(kind, TimeoutError) else kind.__name__)
    assert caught.value.__suppress_context__


async def test_no_error_shows_the_key_or_the_address() -> None:
    replies = [
        Reply(b"", Then.RESET),
        Reply(zipped(ZIP)[:-1], Then.CLOSE),
        http(302, headers={"Location": f"https://elsewhere/{KEY}"}),
        json(401, KEY.encode()),
        json(429, KEY.encode()),
        json(500, KEY.encode()),
        http(200, b"<" + KEY.encode(), headers={"Content-Type": "text/html"}),
    ]
    for reply in replies:
        error = await error_of(reply)
        assert KEY not in f"{error}{error!r}"
        assert "127.0.0.1" not in f"{error}{error!r}"
