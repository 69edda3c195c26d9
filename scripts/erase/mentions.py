"""Remove the IDs of erased evaluations from the rest of Redis, and list the places where they may remain."""

import asyncio
import base64
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

_OURS = "docv:"
_ENTRIES = f"{_OURS}ledger:"
_RUNS = f"{_ENTRIES}run:"
_HOLDS = f"{_OURS}hold:"
_PAGE = 1_000
_REWRITES, _POLL_SECONDS = 20, 0.25
TAKEN = "messages that workers have taken, until they are done with them"
NOTES = "notes of holds, until they end"
FILE = "the append-only file of Redis, until it is rewritten"
ALWAYS = ("replicas' files and backups of Redis", "messages in RabbitMQ, until they are taken", "logs")


async def remove_mentions(redis: "Redis", eval_ids: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """Remove IDs from waiting messages and stored answers; return the places where each ID may remain.

    Entries of the ledger are not touched: the caller removes those first.
    """
    found: dict[str, list[str]] = defaultdict(list)
    async for key in redis.scan_iter(f"{_OURS}*", count=_PAGE, _type="list"):
        await _remove_from_list(redis, key, eval_ids)
    async for key in redis.scan_iter(f"{_OURS}*", count=_PAGE, _type="hash"):
        if key.startswith(_RUNS):
            await _remove_example(redis, key, eval_ids)
        elif not key.startswith((_ENTRIES, _HOLDS)):
            async for field, text in _fields(redis, key):
                for eval_id in _find_ids(text, eval_ids):
                    await _remove_field(redis, key, field, found[eval_id])
    for key in ("cancelled", "taken_back"):
        await redis.zrem(_ENTRIES + key, *eval_ids)
    async for key in redis.scan_iter(f"{_HOLDS}*", count=_PAGE, _type="hash"):
        # A hold is not changed, since an operator wrote its note.
        for eval_id in _find_ids(" ".join(map(str, await redis.hvals(key))), eval_ids):
            found[eval_id].append(NOTES)
    file = await _rewrite_file(redis)
    return {eval_id: (*dict.fromkeys(found[eval_id]), *file, *ALWAYS) for eval_id in eval_ids}


async def _fields(redis: "Redis", key: str) -> AsyncIterator[tuple[str, str]]:
    async for field, text in redis.hscan_iter(key, count=_PAGE):
        yield str(field), str(text)


async def _remove_field(redis: "Redis", key: str, field: str, places: list[str]) -> None:
    if key.endswith(":unacked") or key == f"{_OURS}unacked":
        places.append(TAKEN)
    else:
        await redis.hdel(key, field)


async def _remove_from_list(redis: "Redis", key: str, eval_ids: Collection[str]) -> None:
    """Remove members that name evaluations from a list; from a message with other IDs, too, remove only these IDs."""
    start = 0
    while texts := await redis.lrange(key, start, start + _PAGE - 1):
        start += len(texts)
        for text in map(str, texts):
            if _find_ids(text, eval_ids):
                start -= await _replace_in_list(redis, key, text, _remove_ids(text, eval_ids))


async def _replace_in_list(redis: "Redis", key: str, text: str, rest: str | None) -> int:
    """Replace a member of a list with ``rest``, or remove it; return by how many members the list got shorter."""
    async with redis.pipeline(transaction=True) as pipe:
        if rest:
            # If a worker has taken the member meanwhile, neither command changes anything.
            pipe.linsert(key, "BEFORE", text, rest)
        pipe.lrem(key, 1, text)
        *_, removed = await pipe.execute()
    return 0 if rest else int(removed)


async def _remove_example(redis: "Redis", key: str, eval_ids: Collection[str]) -> None:
    """Remove evaluations from the examples of refusals that a run keeps, because refusals put it on hold."""
    examples = str(await redis.hget(key, "refused") or "").split()
    if kept := [each for each in examples if each not in eval_ids]:
        if len(kept) < len(examples):
            await redis.hset(key, "refused", " ".join(kept))
    elif examples:
        await redis.hset(key, "refused", "")


async def _rewrite_file(redis: "Redis") -> tuple[str, ...]:
    """Make Redis rewrite its append-only file; return the file as a remaining place if it does not."""
    for _ in range(_REWRITES):
        try:
            await redis.bgrewriteaof()
        except RedisError as error:
            if "in progress" not in str(error):
                break
            # That rewrite began before the IDs were removed, so another one must follow.
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return ()
    return (FILE,)


def _find_ids(text: str, eval_ids: Collection[str]) -> list[str]:
    body = _parse_body(text)
    content = text if body is None else text + json.dumps(body)
    return [eval_id for eval_id in eval_ids if eval_id in content]


def _parse_body(text: str) -> Any:
    """Return the body of a Celery message; None if the message does not have our format."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        message = json.loads(text)
        message = message[0] if isinstance(message, list) else message
        return json.loads(base64.b64decode(message["body"]))
    return None


def _remove_ids(text: str, eval_ids: Collection[str]) -> str | None:
    """Return a message without these IDs; None if no ID is left, or if it does not have our format."""
    body = _parse_body(text)
    try:
        arguments = body[1]
        kept = [each for each in arguments["eval_ids"] if str(each).lower() not in eval_ids]
    except (TypeError, KeyError, IndexError):
        return None
    if not kept:
        return None
    arguments["eval_ids"] = kept
    if evidence := arguments.get("evidence"):
        arguments["evidence"] = {each: facts for each, facts in evidence.items() if each.lower() not in eval_ids}
    message = json.loads(text)
    message["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    # Celery repeats the arguments in these headers, for people only.
    message["headers"] |= {name: "" for name in ("argsrepr", "kwargsrepr") if name in message["headers"]}
    return json.dumps(message)
