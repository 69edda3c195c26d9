"""RiskOS is asked once, about an evaluation that does not exist; the answer says what of the key."""

import email.utils

import pytest

from scripts.doctor.finding import State
from scripts.doctor.riskos import answer, certified, clock, examine
from scripts.simulator.options import Options
from scripts.simulator.server import start
from tests.commands import KEY
from worker.settings import Settings


@pytest.mark.parametrize(
    ("status", "headers", "body", "state", "said"),
    [
        (404, {}, b"{}", State.FINE, "accepted"),
        (400, {}, b"{}", State.FINE, "accepted"),
        (404, {}, b"<html>", State.WRONG, "not as RiskOS"),
        (200, {}, b"{}", State.WRONG, "not as RiskOS"),
        (200, {}, b"PK\x03\x04", State.WARNING, "does not exist"),
        (302, {}, b"", State.WRONG, "not as RiskOS"),
        (401, {}, b"{}", State.WRONG, "not accepted"),
        (403, {}, b"{}", State.WRONG, "may not"),
        (429, {"X-RateLimit-Limit": "0"}, b"{}", State.WRONG, "0 requests"),
        (429, {}, b'{"message": "Not activated"}', State.WRONG, "0 requests"),
        (429, {}, b"{}", State.WARNING, "spent"),
        (503, {}, b"", State.WARNING, "fault"),
    ],
)
def test_each_answer_has_its_meaning(
    status: int, headers: dict[str, str], body: bytes, state: State, said: str
) -> None:
    finding = answer(status, headers, body)
    assert finding.state is state
    assert said in finding.said
    assert bool(finding.mend) is (state is not State.FINE)


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, State.FINE), (-40, State.WARNING), (40, State.WARNING), (400, State.WRONG)]
)
def test_the_clock_is_compared_with_the_date_of_the_answer(seconds: int, state: State) -> None:
    now = 1_800_000_000.0
    assert clock(email.utils.formatdate(now + seconds, usegmt=True), now).state is state
    assert clock("", now).state is State.WARNING


def test_a_certificate_that_ends_soon_is_a_warning() -> None:
    assert certified("TLSv1.3", ends=40 * 86_400, now=0).state is State.FINE
    assert certified("TLSv1.3", ends=9 * 86_400, now=0).state is State.WARNING


async def test_one_request_is_sent_and_a_wrong_key_is_known() -> None:
    async with await start(Options(api_key=KEY)) as riskos:
        for key, state in ((KEY, State.WARNING), ("another", State.WRONG)):
            settings = Settings(riskos_url=riskos.url, api_key=key)
            found = {finding.what: finding async for finding in examine(settings)}
            assert found["key at RiskOS"].state is state
        assert riskos.stats().requests == 2


async def test_where_nobody_listens_it_cannot_be_reached(unused_tcp_port: int) -> None:
    settings = Settings(riskos_url=f"http://127.0.0.1:{unused_tcp_port}", api_key=KEY)
    (finding,) = [each async for each in examine(settings)]
    assert finding.unreachable
