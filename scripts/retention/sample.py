"""Choose a sample of the evaluations in the archive, without listing all of it."""

import hashlib
from contextlib import aclosing

from tasks.errors import BadEvalId
from tasks.model.evaluation import parse_eval_id
from tasks.storage.bucket import Bucket

MOST = 10_000
"""Largest sample: memory grows with it."""
_TRIES = 8


async def sample_evaluations(bucket: Bucket, environment: str, count: int) -> list[str]:
    """Return at most ``count`` evaluations of an environment, or all if there are not more.

    They follow fixed points in the range of IDs, which RiskOS assigns at random. So the sample changes only
    with the archive. If there are hardly more than ``count``, it may be a few evaluations smaller.

    Raises:
        StorageError: the archive does not answer.
    """
    found = dict.fromkeys(await _list_first(bucket, environment, "", count + 1))
    if len(found) <= count:
        return list(found)
    found = {}
    for number in range(_TRIES * count):
        place = hashlib.sha256(str(number).encode()).hexdigest()
        found |= dict.fromkeys(await _list_first(bucket, environment, place[:8], 1))
        if len(found) == count:
            break
    return list(found)


async def _list_first(bucket: Bucket, environment: str, after: str, count: int) -> list[str]:
    """Return the first evaluations whose IDs come after a text."""
    prefix, found = f"{environment}/", dict[str, None]()
    async with aclosing(bucket.list_objects(prefix, f"{prefix}{after}" if after else "")) as listing:
        async for some in listing:
            for listed in some:
                eval_id = listed.key.removeprefix(prefix).partition("/")[0]
                if _is_canonical(eval_id):
                    found[eval_id] = None
                if len(found) == count:
                    return list(found)
    return list(found)


def _is_canonical(text: str) -> bool:
    try:
        return parse_eval_id(text) == text
    except BadEvalId:
        return False
