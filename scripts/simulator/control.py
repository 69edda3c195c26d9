"""The simulator's own endpoints: look at the figures, empty them, change how it behaves.

They are for whoever runs it: they need no key, and answer to this machine only. Where there are several keys,
``?key=`` says which is meant.
"""

import ipaddress
from typing import Any

import orjson
from aiohttp import web

from scripts.simulator.keys import Keys
from scripts.simulator.service import SimulatedAccount


def routes(keys: Keys) -> list[web.RouteDef]:
    """Return the endpoints of a simulator with their paths."""

    async def stats(request: web.Request) -> web.Response:
        _only_from_here(request)
        return _json(200, _named(keys, request).stats.snapshot(request.query.get("eval_id")))

    async def reset(request: web.Request) -> web.Response:
        _only_from_here(request)
        _named(keys, request).reset()
        return web.Response(status=204)

    async def change(request: web.Request) -> web.Response:
        _only_from_here(request)
        try:
            _named(keys, request).change(_changes(await request.read()))
        except ValueError as error:
            return _json(400, {"error": str(error)})
        return web.Response(status=204)

    return [
        web.get("/__stats", stats, allow_head=False),
        web.post("/__reset", reset),
        web.post("/__control", change),
    ]


def _named(keys: Keys, request: web.Request) -> SimulatedAccount:
    """Return the service of the key that the query names, or the first.

    Raises:
        web.HTTPNotFound: there is none.
    """
    try:
        return keys.of(request.query.get("key"))
    except ValueError:
        raise web.HTTPNotFound from None


def _only_from_here(request: web.Request) -> None:
    """Refuse other machines.

    Raises:
        web.HTTPForbidden: the request comes from one.
    """
    if not ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback:  # noqa: S104  # nobody's address
        raise web.HTTPForbidden


def _changes(body: bytes) -> dict[str, Any]:
    changes = orjson.loads(body)
    if not isinstance(changes, dict):
        raise ValueError("a JSON object is expected")  # noqa: TRY004  # it is a value of the request
    return changes


def _json(status: int, value: object) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return web.Response(status=status, body=body, content_type="application/json")
