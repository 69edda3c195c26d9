"""Each role has its own rights. Without a secret, a caller learns only that the process is alive."""

from typing import Any
from uuid import uuid4

import pytest
from multidict import CIMultiDict
from pydantic import SecretStr

from scripts.serve.api.openapi import document
from scripts.serve.auth.roles import Authenticator, Caller, Role
from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError
from tests.scripts.serve.conftest import (
    INTAKE,
    MONITORING,
    OPERATOR,
    RECORDS,
    TOKEN,
    VIEWER,
    Client,
    basic,
    running_client,
)
from worker.config.settings import Settings

CALLERS = Authenticator(
    {
        Role.OPERATOR: [SecretStr(OPERATOR), SecretStr("in-both-roles")],
        Role.VIEWER: [SecretStr(VIEWER), SecretStr(MONITORING), SecretStr("in-both-roles")],
        Role.PRODUCER: [SecretStr(INTAKE)],
        Role.RECORDS: [SecretStr(RECORDS)],
    }
)


class Request:
    """The part of a request that an authenticator reads."""

    def __init__(self, authorization: str) -> None:
        self.headers = CIMultiDict([("Authorization", authorization)])


def authenticate(authorization: str) -> Caller | None:
    request: Any = Request(authorization)
    try:
        return CALLERS.authenticate(request)
    except HTTPError as refused:
        if refused.status != 401:
            raise
        return None


@pytest.mark.parametrize(
    ("authorization", "role"),
    [
        (basic(OPERATOR), Role.OPERATOR),
        (basic(VIEWER), Role.VIEWER),
        (f"Bearer {MONITORING}", Role.VIEWER),
        (basic(f"any-name:{MONITORING}"), Role.VIEWER),
        (basic(f":{MONITORING}"), Role.VIEWER),
        (f"Bearer {INTAKE}", Role.PRODUCER),
        (f"Bearer {RECORDS}", Role.RECORDS),
        ("Bearer in-both-roles", Role.OPERATOR),
    ],
)
def test_a_secret_has_its_role_and_a_token_may_be_a_password(authorization: str, role: Role) -> None:
    caller = authenticate(authorization)
    assert caller
    assert caller.role is role


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        f"Bearer {OPERATOR}",
        basic("operator:"),
        basic("operator"),
        basic(OPERATOR + "x"),
        basic(OPERATOR.replace("operator:", "viewer:")),
        basic(f"{MONITORING}:"),
        basic(f"any-name:{OPERATOR}"),
        basic("any-name:" + OPERATOR.partition(":")[2]),
        "Basic %%%",
        f"Bearer {TOKEN}",
    ],
)
def test_an_invalid_secret_has_no_role(authorization: str) -> None:
    assert authenticate(authorization) is None


def test_the_name_of_a_caller_is_its_user_name_or_a_hash() -> None:
    person, program = authenticate(basic(OPERATOR)), authenticate(f"Bearer {MONITORING}")
    again = authenticate(basic(f"any-name:{MONITORING}"))
    assert person
    assert program == again
    assert program
    assert person.name == "operator"
    assert program.name.startswith("token-")
    assert MONITORING not in repr(program)
    assert OPERATOR.partition(":")[2] not in repr(person)


ALL = (
    *(("GET", path) for path in ("/", "/page/now", "/page/runs", "/page/dead-letters", "/page/evaluation")),
    ("GET", "/page/quarantine"),
    *(("GET", path) for path in ("/page/rate", "/page/assets/x/page.css", "/page/pictures/x/selfie/y")),
    *((method, f"/page/{action}") for method in ("GET", "POST") for action in ("resume", "redrive", "drop")),
    *(("GET", path) for path in ("/readyz", "/metrics", "/openapi.json", "/evaluations/x", "/is/not/there")),
    *(("GET", path) for path in ("/webhooks/riskos", "/evaluations")),
    *(("POST", path) for path in ("/webhooks/riskos", "/evaluations", "/evaluations/x/events", "/", "/livez")),
)


@pytest.mark.parametrize("headers", [{}, {"Authorization": basic("operator:guessed")}, {"Authorization": "Bearer x"}])
async def test_every_route_but_livez_is_refused_without_a_login(settings: Settings, headers: dict[str, str]) -> None:
    async with running_client(settings, HttpLimits(wrong_secrets_per_second=1_000)) as client:
        answers = {(method, path): await client.send(method, path, **headers) for method, path in ALL}
        assert (await client.send("GET", "/livez", **headers)).status == 200
    assert {route: answer.status for route, answer in answers.items() if answer.status != 401} == {}
    assert {answer.body for answer in answers.values()} == {
        b'{"error":"send a valid secret in the Authorization header"}'
    }


async def test_a_browser_is_asked_for_a_name_and_a_password(client: Client) -> None:
    assert (await client.send("GET", "/")).headers["WWW-Authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize("authorization", [basic(OPERATOR), basic(VIEWER), f"Bearer {MONITORING}", f"Bearer {INTAKE}"])
@pytest.mark.parametrize("path", ["/readyz", "/metrics", "/openapi.json"])
async def test_every_role_reads_the_state_of_the_process(client: Client, path: str, authorization: str) -> None:
    assert (await client.send("GET", path, Authorization=authorization)).status == 200


EVENTS = "POST /evaluations/{eval_id}/events"
WEBHOOKS = {"POST /webhooks/riskos", "POST /webhooks/riskos/{account}"}
STATE = {"GET /livez", "GET /readyz", "GET /metrics", "GET /openapi.json"}
PAGES = {"GET /", "GET /page/runs"}
ALLOWED = {
    f"Bearer {TOKEN}": {"GET /livez", *WEBHOOKS},
    f"Bearer {INTAKE}": {*STATE, "POST /evaluations", "GET /evaluations/{eval_id}"},
    f"Bearer {RECORDS}": {"GET /livez", EVENTS},
    f"Bearer {MONITORING}": STATE | PAGES,
    basic(VIEWER): STATE | PAGES,
    basic(OPERATOR): STATE | PAGES | {EVENTS},
}
ROUTES = PAGES | {f"{method.upper()} {path}" for path, methods in document()["paths"].items() for method in methods}


@pytest.mark.parametrize("authorization", ALLOWED)
async def test_a_secret_allows_the_routes_of_its_role_only(client: Client, authorization: str) -> None:
    allowed = set()
    for route in ROUTES:
        method, path = route.format(eval_id=uuid4(), account="default").split()
        answer = await client.send(method, path, Authorization=authorization)
        if answer.status not in {401, 403}:
            allowed.add(route)
    assert allowed == ALLOWED[authorization]


@pytest.mark.parametrize("path", ["/", "/page/rate", "/page/runs", "/page/evaluation", "/page/quarantine"])
async def test_a_producer_cannot_open_the_page(client: Client, path: str) -> None:
    assert (await client.send("GET", path, Authorization=f"Bearer {INTAKE}")).status == 403


async def test_a_webhook_secret_allows_the_webhook_only(client: Client) -> None:
    for path in ("/", "/readyz", "/metrics"):
        assert (await client.send("GET", path, Authorization=f"Bearer {TOKEN}")).status == 401


async def test_an_operator_cannot_submit_ids(client: Client, eval_id: str) -> None:
    assert (await client.submit({"eval_ids": [eval_id]}, Authorization=basic(OPERATOR))).status == 401
