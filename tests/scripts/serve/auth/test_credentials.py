"""Which credentials are accepted, and that a refusal does not say why."""

import hmac
from typing import Any

import pytest
from multidict import CIMultiDict
from pydantic import SecretStr

from scripts.serve.auth import credentials as module
from scripts.serve.auth.credentials import CredentialCheck
from scripts.serve.http.responses import HTTPError
from tests.scripts.serve.conftest import PAIR, TOKEN, Client, basic, event


class Request:
    """As much of a request as a login reads."""

    def __init__(self, *shown: str) -> None:
        self.headers = CIMultiDict(("Authorization", value) for value in shown)


def recognised(login: CredentialCheck, *shown: str) -> bool:
    request: Any = Request(*shown)
    try:
        return bool(login.authenticate(request))
    except HTTPError as refused:
        return refused.status != 401


def login(*secrets: str) -> CredentialCheck:
    return CredentialCheck(map(SecretStr, secrets), "Bearer")


@pytest.mark.parametrize(
    "shown", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN}", basic(PAIR), basic(PAIR).replace("B", "b", 1)]
)
def test_each_of_several_secrets_is_valid(shown: str) -> None:
    assert recognised(login("another-token-0000", TOKEN, PAIR), shown)


@pytest.mark.parametrize(
    "shown",
    [
        (),
        ("",),
        ("Bearer",),
        ("Bearer ",),
        (TOKEN,),
        (f"Bearer {TOKEN}x",),
        (f"Bearer {TOKEN[:-1]}",),
        (f"Token {TOKEN}",),
        (f"Bearer {PAIR}",),
        (basic(TOKEN),),
        (basic(PAIR + "x"),),
        (basic("riskos:"),),
        ("Basic %%%",),
        ("Basic é\udcff",),
        ("Bearer \udcff",),
        (f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
    ],
)
def test_an_invalid_secret_is_refused(shown: tuple[str, ...]) -> None:
    assert not recognised(login(TOKEN, PAIR), *shown)


def test_every_request_is_refused_when_no_secret_is_configured() -> None:
    assert not recognised(login(), "Bearer ")
    assert not recognised(login())


def test_every_secret_is_compared_even_after_a_match(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda one, two: compared.append(two) or real(one, two))
    assert recognised(login(TOKEN, "another-token-0000", PAIR), f"Bearer {TOKEN}")
    assert len(compared) == 3


def test_the_identity_of_a_caller_does_not_contain_its_secret() -> None:
    request: Any = Request(f"Bearer {TOKEN}")
    assert TOKEN not in login(TOKEN).authenticate(request)


async def test_every_refusal_is_identical(client: Client) -> None:
    shown: tuple[dict[str, str], ...] = (
        {},
        {"Authorization": f"Digest {TOKEN}"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic %%%"},
        {"Authorization": basic(f"riskos:{TOKEN}")},
    )
    answers = [await client.send("POST", "/webhooks/riskos", event(), **headers) for headers in shown]
    seen = {
        (answer.status, answer.body, tuple((name, value) for name, value in answer.headers.items() if name != "Date"))
        for answer in answers
    }
    assert len(seen) == 1
    assert answers[0].status == 401
    assert answers[0].headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_user_and_password_are_accepted_as_basic(client: Client) -> None:
    assert (await client.deliver(event(), Authorization=basic(PAIR))).status == 200


async def test_a_webhook_secret_is_refused_for_submitting_ids(client: Client) -> None:
    ids = {"eval_ids": ["0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"]}
    assert (await client.hand_in(ids, Authorization=f"Bearer {TOKEN}")).status == 401
    assert (await client.hand_in(ids)).status == 202
