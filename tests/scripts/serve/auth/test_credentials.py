"""Valid credentials are accepted, and a refusal does not give its reason."""

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
    """The part of a request that a credential check reads."""

    def __init__(self, *values: str) -> None:
        self.headers = CIMultiDict(("Authorization", value) for value in values)


def is_accepted(login: CredentialCheck, *values: str) -> bool:
    request: Any = Request(*values)
    try:
        return bool(login.authenticate(request))
    except HTTPError as refused:
        return refused.status != 401


def login(*secrets: str) -> CredentialCheck:
    return CredentialCheck(map(SecretStr, secrets), "Bearer")


@pytest.mark.parametrize(
    "value", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN}", basic(PAIR), basic(PAIR).replace("B", "b", 1)]
)
def test_each_of_several_secrets_is_valid(value: str) -> None:
    assert is_accepted(login("another-token-0000", TOKEN, PAIR), value)


@pytest.mark.parametrize(
    "values",
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
def test_an_invalid_secret_is_refused(values: tuple[str, ...]) -> None:
    assert not is_accepted(login(TOKEN, PAIR), *values)


def test_every_request_is_refused_when_no_secret_is_configured() -> None:
    assert not is_accepted(login(), "Bearer ")
    assert not is_accepted(login())


def test_every_secret_is_compared_even_after_a_match(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda one, two: compared.append(two) or real(one, two))
    assert is_accepted(login(TOKEN, "another-token-0000", PAIR), f"Bearer {TOKEN}")
    assert len(compared) == 3


def test_the_identity_of_a_caller_does_not_contain_its_secret() -> None:
    request: Any = Request(f"Bearer {TOKEN}")
    assert TOKEN not in login(TOKEN).authenticate(request)


async def test_every_refusal_is_identical(client: Client) -> None:
    cases: tuple[dict[str, str], ...] = (
        {},
        {"Authorization": f"Digest {TOKEN}"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic %%%"},
        {"Authorization": basic(f"riskos:{TOKEN}")},
    )
    answers = [await client.send("POST", "/webhooks/riskos", event(), **headers) for headers in cases]
    distinct = {
        (answer.status, answer.body, tuple((name, value) for name, value in answer.headers.items() if name != "Date"))
        for answer in answers
    }
    assert len(distinct) == 1
    assert answers[0].status == 401
    assert answers[0].headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_user_and_password_are_accepted_as_basic(client: Client) -> None:
    assert (await client.deliver(event(), Authorization=basic(PAIR))).status == 200


async def test_a_webhook_secret_is_refused_for_submitting_ids(client: Client) -> None:
    ids = {"eval_ids": ["0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"]}
    assert (await client.submit(ids, Authorization=f"Bearer {TOKEN}")).status == 401
    assert (await client.submit(ids)).status == 202
