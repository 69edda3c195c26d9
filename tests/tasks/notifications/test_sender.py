"""A notification is one signed POST of JSON. Any status but 2xx is a failure, and redirects are not followed."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from tasks.notifications.notification import Notification
from tasks.notifications.sender import NotificationFailed, NotificationSender

SECRET = "a-secret-of-this-test"
NOTE = Notification("an-id", "run_finished", "It finished.", {"run": "q3"})


class Receiver:
    """Receives notifications, and answers with one status after the other."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, dict(request.headers), await request.read()))
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status // 100 == 3 else None)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def url(receiver: Receiver) -> AsyncIterator[SecretStr]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.answer)
    async with TestServer(application) as server:
        yield SecretStr(str(server.make_url("/hook")))


async def test_the_body_is_json_and_signed(receiver: Receiver, url: SecretStr) -> None:
    await NotificationSender(url, SecretStr(SECRET)).send(NOTE)
    [(path, headers, body)] = receiver.requests
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert (path, headers["Content-Type"], headers["Docv-Event"]) == ("/hook", "application/json", "run_finished")
    assert headers["Docv-Signature"] == f"sha256={digest}"
    content = json.loads(body)
    assert (content["id"], content["text"], content["run"]) == ("an-id", "It finished.", "q3")


async def test_a_notification_without_a_secret_has_no_signature(receiver: Receiver, url: SecretStr) -> None:
    await NotificationSender(url).send(NOTE)
    assert "Docv-Signature" not in receiver.requests[0][1]


@pytest.mark.parametrize("status", [302, 307, 400, 404, 429, 500])
async def test_any_status_but_2xx_is_a_failure_and_no_redirect_is_followed(
    receiver: Receiver, url: SecretStr, status: int
) -> None:
    receiver.statuses = [status]
    with pytest.raises(NotificationFailed, match=f"status {status}") as failed:
        await NotificationSender(url).send(NOTE)
    assert [path for path, _, _ in receiver.requests] == ["/hook"]
    assert "/hook" not in str(failed.value)


async def test_an_unreachable_receiver_is_a_failure_without_the_url() -> None:
    with pytest.raises(NotificationFailed) as failed:
        await NotificationSender(SecretStr("http://127.0.0.1:9/hook")).send(NOTE)
    assert "127.0.0.1" not in str(failed.value)


@pytest.mark.parametrize(("statuses", "count"), [([], 1), ([500], 2), ([500, 500], 3)])
async def test_a_notification_is_sent_at_most_three_times(
    receiver: Receiver, url: SecretStr, statuses: list[int], count: int
) -> None:
    receiver.statuses = list(statuses)
    await NotificationSender(url, pauses=(0, 0)).send_with_retries(NOTE)
    assert len(receiver.requests) == count


async def test_a_failure_of_every_attempt_is_raised(receiver: Receiver, url: SecretStr) -> None:
    receiver.statuses = [500] * 3
    with pytest.raises(NotificationFailed):
        await NotificationSender(url, pauses=(0, 0)).send_with_retries(NOTE)
    assert len(receiver.requests) == 3
