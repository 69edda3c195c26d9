"""A running server and its client."""

import base64
import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from scripts.serve.http.limits import HttpLimits
from scripts.serve.server import running_server
from worker.config.accounts import load_accounts
from worker.config.settings import Settings

TOKEN = "token-of-the-webhook-1"
PAIR = "riskos:password-of-the-webhook"
INTAKE = "token-of-a-producer-1"
RECORDS = "token-of-the-records-system"
OPERATOR = "operator:password-of-the-operator"
VIEWER = "viewer:password-of-the-viewer"
MONITORING = "token-of-the-monitoring"


@dataclass(frozen=True)
class Response:
    """The status, headers and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A client of a server. It sends a valid secret unless the test sends another one."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._http = http

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        """Send a request. An underscore in the name of a header stands for a hyphen."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self._http.request(method, self.url + path, data=data, headers=named) as response:
            return Response(response.status, response.headers, await response.read())

    async def deliver(self, event: Any, **headers: str) -> Response:
        """Deliver an event as RiskOS does."""
        return await self.send("POST", "/webhooks/riskos", event, **{"Authorization": f"Bearer {TOKEN}", **headers})

    async def submit(self, body: Any, **headers: str) -> Response:
        """Submit IDs as a producer does."""
        return await self.send("POST", "/evaluations", body, **{"Authorization": f"Bearer {INTAKE}", **headers})

    async def look_up(self, eval_id: str) -> Response:
        """Get the status of an evaluation."""
        return await self.send("GET", f"/evaluations/{eval_id}", Authorization=f"Bearer {INTAKE}")

    async def metrics(self) -> str:
        """Return the metrics as text."""
        return (await self.send("GET", "/metrics", Authorization=f"Bearer {MONITORING}")).body.decode()


def basic(pair: str) -> str:
    """Return the header that a browser sends for ``user:password``."""
    return "Basic " + base64.b64encode(pair.encode()).decode()


def event(eval_id: Any = None, **changes: Any) -> dict[str, Any]:
    """Return an event as RiskOS sends it. ``data`` in the changes is merged into its data."""
    data = {"id": "customers-own", "eval_id": eval_id or str(uuid4()), "environment_name": "Sandbox"}
    data |= changes.pop("data", {})
    facts = {"event_id": str(uuid4()), "event_type": "evaluation_completed", "event_at": "2026-01-01T00:00:00Z"}
    return {**facts, "data": data, **changes}


def settings_for(redis_url: str, folder: Path, **changes: Any) -> Settings:
    return Settings(
        redis_url=SecretStr(redis_url),
        archive_url=(folder / "archive").as_uri(),
        **{
            "webhook_secrets": (SecretStr(TOKEN), SecretStr(PAIR)),
            "intake_tokens": (SecretStr(INTAKE),),
            "records_tokens": (SecretStr(RECORDS),),
            "operators": (SecretStr(OPERATOR),),
            "viewers": (SecretStr(VIEWER), SecretStr(MONITORING)),
            **changes,
        },
    )


@contextlib.asynccontextmanager
async def running_client(
    settings: Settings, bounds: HttpLimits | None = None, *, read_only: bool = False
) -> AsyncIterator[Client]:
    """Run a server until the block ends, and yield its client."""
    async with (
        running_server(settings, load_accounts(settings), "127.0.0.1", 0, bounds, read_only=read_only) as url,
        aiohttp.ClientSession() as http,
    ):
        yield Client(url, http)


@pytest.fixture
def settings(redis: Redis, redis_url: str, tmp_path: Path) -> Settings:
    return settings_for(redis_url, tmp_path)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with running_client(settings) as client:
        yield client


async def dump_redis(redis: Redis) -> str:
    """Return all keys and values of a Redis as one text."""
    texts = []
    async for key in redis.scan_iter():
        match await redis.type(key):
            case "string":
                value: Any = await redis.get(key)
            case "hash":
                value = await redis.hgetall(key)
            case "list":
                value = await redis.lrange(key, 0, -1)
            case "zset":
                value = await redis.zrange(key, 0, -1)
            case "set":
                value = await redis.smembers(key)
            case _:
                value = await redis.xrange(key)
        texts.append(f"{key} {value}")
    return "\n".join(texts)
