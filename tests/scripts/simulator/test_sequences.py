import asyncio
import email.utils
import io
import socket
import time
import urllib.parse
import zipfile

import aiohttp
import orjson
import pytest

from scripts.simulator.bundles import bundle_of
from scripts.simulator.messages import NO_DOCUMENTS
from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for
from tests.scripts.simulator.conftest import Client

FIRST_STATUSES = {
    Scenario.RATE_LIMITED_SECONDS: [429],
    Scenario.RATE_LIMITED_DATE: [429],
    Scenario.RATE_LIMITED_X: [429],
    Scenario.RATE_LIMITED_BARE: [429],
    Scenario.UNAUTHORIZED_ONCE: [401],
    Scenario.FORBIDDEN_ONCE: [403],
    Scenario.ERROR_500_ONCE: [500],
    Scenario.ERROR_503_TWICE: [503, 503],
    Scenario.ERROR_502_ONCE: [502],
    Scenario.ERROR_504_ONCE: [504],
    Scenario.ERROR_408_ONCE: [408],
}
BROKEN_CONNECTIONS = [Scenario.CUT_SHORT_ONCE, Scenario.CUT_SHORT_ALWAYS, Scenario.RESET_ONCE]


@pytest.mark.parametrize("scenario", LAYOUTS)
async def test_a_plain_evaluation_always_returns_its_bundle(client: Client, scenario: Scenario) -> None:
    eval_id = eval_id_for(scenario, 1)
    for _ in range(2):
        response = await client.get_documents(eval_id)
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/zip"
        assert response.named_for == eval_id
        assert response.body == bundle_of(eval_id)


async def test_an_id_without_a_scenario_is_a_plain_evaluation_in_either_case(client: Client) -> None:
    eval_id = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
    for requested in (eval_id, eval_id.upper()):
        response = await client.get_documents(requested)
        assert response.named_for == eval_id
        assert response.body == bundle_of(eval_id)


@pytest.mark.parametrize("scenario", NO_DOCUMENTS)
async def test_no_documents_is_answered_in_every_known_shape(client: Client, scenario: Scenario) -> None:
    for _ in range(2):
        response = await client.get_documents(eval_id_for(scenario, 1))
        assert response.status == 400
        assert response.headers["Content-Type"] == "application/json"
        assert orjson.loads(response.body) == NO_DOCUMENTS[scenario]


async def test_an_unknown_evaluation_is_not_found(client: Client) -> None:
    assert (await client.get_documents(eval_id_for(Scenario.NOT_FOUND, 1))).status == 404


async def test_a_gateway_answers_404_with_an_empty_body_or_its_own_message(client: Client) -> None:
    once = eval_id_for(Scenario.GATEWAY_404_ONCE, 1)
    assert [(await client.get_documents(once)).status for _ in range(2)] == [404, 200]
    for scenario, body in (
        (Scenario.GATEWAY_404_ALWAYS, b""),
        (Scenario.GATEWAY_MESSAGE_ALWAYS, b'{"message":"no Route matched with those values"}'),
    ):
        response = await client.get_documents(eval_id_for(scenario, 1))
        assert (response.status, response.body) == (404, body)


async def test_every_response_has_its_own_request_id(client: Client) -> None:
    eval_ids = [eval_id_for(scenario, 1) for scenario in (Scenario.DOCUMENTED, Scenario.NOT_FOUND, Scenario.REJECTED)]
    responses = [await client.get_documents(eval_id) for eval_id in eval_ids]
    responses.append(await client.get_documents(eval_ids[0], "another key"))
    assert len({response.headers["X-Request-Id"] for response in responses}) == 4


async def test_the_message_of_a_rejected_request_does_not_contain_found(client: Client) -> None:
    response = await client.get_documents(eval_id_for(Scenario.REJECTED, 1))
    assert response.status == 400
    assert b"found" not in response.body.lower()


@pytest.mark.parametrize("scenario", FIRST_STATUSES)
async def test_a_temporary_error_is_followed_by_the_bundle(client: Client, scenario: Scenario) -> None:
    eval_id = eval_id_for(scenario, 1)
    for status in FIRST_STATUSES[scenario]:
        assert (await client.get_documents(eval_id)).status == status
    for _ in range(2):
        assert (await client.get_documents(eval_id)).body == bundle_of(eval_id)


async def test_each_evaluation_has_its_own_sequence(client: Client) -> None:
    assert (await client.get_documents(eval_id_for(Scenario.ERROR_500_ONCE, 1))).status == 500
    assert (await client.get_documents(eval_id_for(Scenario.ERROR_500_ONCE, 2))).status == 500


async def test_a_permanent_error_is_repeated(client: Client) -> None:
    eval_id = eval_id_for(Scenario.ERROR_500_ALWAYS, 1)
    assert [(await client.get_documents(eval_id)).status for _ in range(5)] == [500] * 5


async def test_retry_after_is_in_seconds_or_a_date_or_missing(client: Client) -> None:
    seconds = await client.get_documents(eval_id_for(Scenario.RATE_LIMITED_SECONDS, 1))
    date = await client.get_documents(eval_id_for(Scenario.RATE_LIMITED_DATE, 1))
    marked = await client.get_documents(eval_id_for(Scenario.RATE_LIMITED_X, 1))
    bare = await client.get_documents(eval_id_for(Scenario.RATE_LIMITED_BARE, 1))
    assert seconds.headers["Retry-After"] == marked.headers["X-Retry-After"] == "1"
    assert 0 < email.utils.parsedate_to_datetime(date.headers["Retry-After"]).timestamp() - time.time() <= 2
    assert not [name for name in bare.headers if "retry" in name.lower()]


@pytest.mark.parametrize("scenario", BROKEN_CONNECTIONS)
async def test_a_broken_connection_delivers_a_part_of_the_body(client: Client, scenario: Scenario) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.get_documents(eval_id_for(scenario, 1))


@pytest.mark.parametrize("scenario", [Scenario.CUT_SHORT_ONCE, Scenario.RESET_ONCE])
async def test_a_connection_that_breaks_once_works_the_second_time(client: Client, scenario: Scenario) -> None:
    eval_id = eval_id_for(scenario, 1)
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.get_documents(eval_id)
    assert (await client.get_documents(eval_id)).body == bundle_of(eval_id)


async def test_a_connection_that_always_breaks_breaks_each_time(client: Client) -> None:
    for _ in range(3):
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.get_documents(eval_id_for(Scenario.CUT_SHORT_ALWAYS, 1))


def read_all(url: str, eval_id: str, key: str) -> bytes:
    """Return the raw bytes of an answer, read until the connection ends."""
    where = urllib.parse.urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=5) as connection:
        lines = (f"GET /api/evaluation/{eval_id}/documents HTTP/1.1", "Host: x", f"Authorization: Bearer {key}")
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
    return received


async def test_a_truncated_body_ends_after_half_of_its_content_length(client: Client) -> None:
    eval_id = eval_id_for(Scenario.CUT_SHORT_ALWAYS, 1)
    bundle = bundle_of(eval_id)
    raw = await asyncio.to_thread(read_all, client.simulator.url, eval_id, client.simulator.options.api_key)
    headers, _, body = raw.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(bundle)}".encode() in headers
    assert body == bundle[: len(bundle) // 2]


async def test_a_reset_connection_raises_connection_reset_error(client: Client) -> None:
    eval_id = eval_id_for(Scenario.RESET_ONCE, 1)
    with pytest.raises(ConnectionResetError):
        await asyncio.to_thread(read_all, client.simulator.url, eval_id, client.simulator.options.api_key)


@pytest.mark.parametrize("scenario", [Scenario.SLOW_HEADERS, Scenario.SLOW_BODY])
async def test_a_slow_response_is_slow_and_complete(client: Client, scenario: Scenario) -> None:
    eval_id, began = eval_id_for(scenario, 1), time.monotonic()
    response = await client.get_documents(eval_id)
    assert response.body == bundle_of(eval_id)
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("scenario", [Scenario.HTML_ONCE, Scenario.HTML_ALWAYS])
async def test_an_html_page_has_status_200(client: Client, scenario: Scenario) -> None:
    response = await client.get_documents(eval_id_for(scenario, 1))
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/html")
    assert response.body.startswith(b"<!doctype html>")


async def test_a_redirect_names_another_host_and_is_counted_when_followed(client: Client) -> None:
    response = await client.get_documents(eval_id_for(Scenario.REDIRECT_ALWAYS, 1))
    assert response.status == 302
    target = urllib.parse.urlsplit(response.headers["Location"])
    assert target.hostname != urllib.parse.urlsplit(client.simulator.url).hostname
    assert client.simulator.stats().redirects_followed == 0
    assert (await client.send("GET", target.path)).status == 200
    assert client.simulator.stats().redirects_followed == 1


@pytest.mark.parametrize("scenario", [Scenario.FOREIGN_FILENAME_ONCE, Scenario.FOREIGN_FILENAME_ALWAYS])
async def test_a_foreign_bundle_has_the_filename_of_its_evaluation(client: Client, scenario: Scenario) -> None:
    eval_id = eval_id_for(scenario, 1)
    response = await client.get_documents(eval_id)
    assert response.named_for != eval_id
    assert response.body == bundle_of(response.named_for)


@pytest.mark.parametrize("scenario", [Scenario.HTML_ONCE, Scenario.FOREIGN_FILENAME_ONCE, Scenario.DAMAGED_ONCE])
async def test_a_wrong_response_is_followed_by_the_right_one(client: Client, scenario: Scenario) -> None:
    eval_id = eval_id_for(scenario, 1)
    first, second, third = [await client.get_documents(eval_id) for _ in range(3)]
    assert first.body != second.body == third.body == bundle_of(eval_id)
    assert second.named_for == third.named_for == eval_id


async def test_a_bundle_that_is_always_damaged_is_the_same_each_time(client: Client) -> None:
    eval_id = eval_id_for(Scenario.DAMAGED_ALWAYS, 1)
    first, second = [await client.get_documents(eval_id) for _ in range(2)]
    assert first.body == second.body
    assert zipfile.ZipFile(io.BytesIO(first.body)).testzip()


@pytest.mark.parametrize("scenario", [Scenario.GARBAGE_ALWAYS, Scenario.TRUNCATED_ALWAYS])
async def test_garbage_has_the_media_type_of_a_zip(client: Client, scenario: Scenario) -> None:
    response = await client.get_documents(eval_id_for(scenario, 1))
    assert response.headers["Content-Type"] == "application/zip"
    assert not zipfile.is_zipfile(io.BytesIO(response.body))


async def test_a_bundle_can_be_empty(client: Client) -> None:
    response = await client.get_documents(eval_id_for(Scenario.EMPTY_ALWAYS, 1))
    assert zipfile.ZipFile(io.BytesIO(response.body)).namelist() == []


@pytest.mark.parametrize("scenario", [Scenario.OVERLAPPING_ALWAYS, Scenario.FORGED_SIZE_ALWAYS])
async def test_an_unsafe_bundle_can_be_opened(client: Client, scenario: Scenario) -> None:
    response = await client.get_documents(eval_id_for(scenario, 1))
    assert len(zipfile.ZipFile(io.BytesIO(response.body)).namelist()) == 3


async def test_a_changing_evaluation_has_another_attachment_from_the_second_request_on(client: Client) -> None:
    eval_id = eval_id_for(Scenario.CHANGING, 1)
    first, second, third = [(await client.get_documents(eval_id)).body for _ in range(3)]
    assert first == bundle_of(eval_id)
    assert second == third == bundle_of(eval_id, changed=True)
