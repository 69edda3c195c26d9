"""Users of the operations page."""

import html
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.resilience.holds import Holds
from tasks.storage.local_bucket import LocalBucket
from tests.archives import archive, documents
from tests.scripts.serve.conftest import OPERATOR, VIEWER, Client, Response, basic

HTML = "<img src=x onerror=alert(1)>\"'&"


class PageUser:
    """A user who reads the page and presses its buttons without JavaScript."""

    def __init__(self, client: Client, pair: str) -> None:
        self._client, self._login = client, basic(pair)

    async def get_page(self, path: str, **headers: str) -> Response:
        return await self._client.send("GET", path, Authorization=self._login, **headers)

    async def post(self, path: str, fields: dict[str, str], **headers: str) -> Response:
        return await self._client.send("POST", path, urlencode(fields).encode(), Authorization=self._login, **headers)

    async def token(self) -> str:
        """Return the token of a form for this user."""
        return self.fields(await self.get_page("/page/redrive?cause=service_failed"))["token"]

    async def press(self, path: str) -> Response:
        """Submit the confirmation form at an address."""
        question = await self.get_page(path)
        assert question.status == 200
        return await self.post(path.partition("?")[0], self.fields(question))

    @staticmethod
    def fields(answer: Response) -> dict[str, str]:
        found = re.findall(r'name="(\w+)" value="(.*?)"', answer.body.decode())
        return {name: html.unescape(value) for name, value in found}


@pytest.fixture
def operator(client: Client) -> PageUser:
    return PageUser(client, OPERATOR)


@pytest.fixture
def viewer(client: Client) -> PageUser:
    return PageUser(client, VIEWER)


async def add_dead_letters(
    redis: Redis, eval_ids: Sequence[str], cause: str = "service_failed", run: str = "q3"
) -> None:
    """Add evaluations that are dead letters."""
    ledger = Ledger(redis)
    await ledger.accept(eval_ids, EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run=run)))
    failure = Failure(cause, "RiskOS answered with status 503", 503)
    for entry in await ledger.lease(eval_ids, token="a-token"):
        await ledger.dead_letter(entry, attempts=6, failure=failure)


async def fill_redis(redis: Redis, eval_ids: Sequence[str]) -> None:
    """Add a run, dead letters and a hold to Redis. It needs at least twenty IDs."""
    ledger = Ledger(redis)
    await ledger.accept(eval_ids[:10], EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="2026-q3")))
    for entry, outcome in zip(await ledger.lease(eval_ids[:6], token="a-token"), [*Outcome], strict=False):
        await ledger.complete(entry, outcome)
    await add_dead_letters(redis, eval_ids[10:16])
    await add_dead_letters(redis, eval_ids[16:20], HTML)
    await Holds(redis).place_manual("default", f"the month is closed {HTML}")


async def archive_revisions(folder: Path, eval_id: str, revisions: int = 1) -> LocalBucket:
    """Archive an evaluation with three documents and this number of revisions."""
    bucket = LocalBucket(folder / "archive")
    for revision in range(1, revisions + 1):
        await archive(bucket, eval_id, Outcome.ARCHIVED, documents(eval_id, revision, 2_000))
    return bucket


@pytest.fixture
async def archived(tmp_path: Path, eval_id: str) -> str:
    """The ID of an evaluation that has two revisions in the archive."""
    await archive_revisions(tmp_path, eval_id, revisions=2)
    return eval_id
