"""The simulator's own endpoints: read the counters, reset them, change options.

They need no key and answer only to this machine. ``?key=`` names the account if there are several keys.
"""

import ipaddress

import orjson
from aiohttp import web

from scripts.simulator.keys import Keys
from scripts.simulator.service import SimulatedAccount


def routes(keys: Keys) -> list[web.RouteDef]:
    """Return the endpoints of a simulator with their paths."""

    async def stats(request: web.Request) -> web.Response:
        return _json(200, _find_account(keys, request).snapshot(request.query.get("eval_id")))

    async def reset(request: web.Request) -> web.Response:
        _find_account(keys, request).reset()
        return web.Response(status=204)

    async def change(request: web.Request) -> web.Response:
        account = _find_account(keys, request)
        try:
            changes = orjson.loads(await request.read())
            if not isinstance(changes, dict):
                return _json(400, {"error": "a JSON object is expected"})
            account.change(changes)
        except ValueError as error:
            return _json(400, {"error": str(error)})
        return web.Response(status=204)

    return [
        web.get("/__stats", stats, allow_head=False),
        web.post("/__reset", reset),
        web.post("/__control", change),
    ]


def _find_account(keys: Keys, request: web.Request) -> SimulatedAccount:
    """Return the account of the key that the query names, or the first.

    Raises:
        web.HTTPForbidden: the request comes from another machine.
        web.HTTPNotFound: there is no such key.
    """
    if not ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback:  # noqa: S104  # not the address of any client
        raise web.HTTPForbidden
    try:
        return keys.of(request.query.get("key"))
    except ValueError:
        raise web.HTTPNotFound from None


def _json(status: int, value: object) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return web.Response(status=status, body=body, content_type="application/json")
