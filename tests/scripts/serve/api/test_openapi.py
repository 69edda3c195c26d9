"""The OpenAPI document covers every route, and equals the published copy."""

import json
from pathlib import Path

from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from scripts.serve.api.openapi import document
from scripts.serve.application import ServeClients, make_application
from scripts.serve.http.limits import HttpLimits
from scripts.serve.metrics import HttpMetrics
from tests.scripts.serve.conftest import INTAKE, Client, settings_for
from worker.config.accounts import load_accounts

PUBLISHED = Path(__file__).parents[4] / "docs" / "openapi.json"


def test_the_document_is_valid() -> None:
    validate(document(), cls=OpenAPIV31SpecValidator)


def test_the_published_document_equals_the_generated_one() -> None:
    command = (
        'python -c "import json; from scripts.serve.api.openapi import document; '
        'print(json.dumps(document(), indent=1))" > docs/openapi.json'
    )
    assert PUBLISHED.read_text("utf-8") == json.dumps(document(), indent=1) + "\n", f"regenerate it: {command}"


async def test_every_route_is_described_and_no_other(tmp_path: Path) -> None:
    settings = settings_for("redis://127.0.0.1:1/0", tmp_path)
    clients = ServeClients(redis=Unused(), archive=tmp_path, events=Unused(), ids=Unused())  # type: ignore[arg-type]
    application = make_application(settings, load_accounts(settings), clients, HttpMetrics(), HttpLimits())
    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in application.router.routes()
        # The operations page is for people.
        if route.resource and route.resource.canonical != "/" and not route.resource.canonical.startswith("/page/")
    }
    described = {(method, path) for path, methods in document()["paths"].items() for method in methods}
    assert routes == described


async def test_the_document_is_served(client: Client) -> None:
    answer = await client.send("GET", "/openapi.json", Authorization=f"Bearer {INTAKE}")
    assert (answer.status, answer.json) == (200, document())


class Unused:
    """A client that is never used."""

    def register_script(self, _: str) -> None:
        return None

    async def ping(self) -> None:
        return None
