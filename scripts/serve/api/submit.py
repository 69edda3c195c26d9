"""IDs over HTTP: what is answered with 202 is in the ledger."""

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from redis.exceptions import RedisError

from scripts.serve.api.background_publisher import BackgroundPublisher
from scripts.serve.api.idempotency import IdempotencyKey, IdempotencyStore, read_idempotency_key
from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.credentials import CredentialCheck
from scripts.serve.http.body import parse_object, read_body
from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError, json_response
from scripts.serve.metrics import HttpMetrics, IdResult
from tasks.errors import BadEvalId, BadRunName
from tasks.ledger.ledger import Ledger
from tasks.ledger.serialization import Acceptance, select_published
from tasks.model.evaluation import parse_eval_id, printable_id
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.submitted_facts import SubmittedEvidence, assign_facts
from tasks.queueing.message import parse_run
from worker.config.accounts import Accounts
from worker.config.settings import MAX_SETTLE_SECONDS

T = TypeVar("T")
MOST_IDS = 10_000
"""Most IDs in one request."""
_AT_ONCE = 1_000


def _run(name: str) -> str:
    try:
        return parse_run(name)
    except BadRunName as error:
        raise ValueError(str(error)) from None


# What is no text is told for each ID by itself, as everything else that is wrong with one.
_IdText = Annotated[Any, WithJsonSchema({"type": "string", "format": "uuid"})]


class SubmitRequest(BaseModel):
    """IDs that are handed in."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    eval_ids: list[_IdText] = Field(min_length=1, max_length=MOST_IDS, description="Evaluations to archive.")
    queue: Literal["live", "backfill"] = Field(default="live", description="How urgent they are.")
    run: Annotated[str, AfterValidator(_run)] | None = Field(
        default=None, description="Name to count them under: 1 to 64 letters, digits, dots, hyphens and underscores."
    )
    refresh: bool = Field(default=False, description="Ask RiskOS again about what is archived already.")
    account: str | None = Field(
        default=None, description="Name of the account to ask with; where none is named default, or the only one."
    )
    settle: float = Field(
        default=0.0,
        ge=0,
        le=MAX_SETTLE_SECONDS,
        allow_inf_nan=False,
        description="Seconds before the first request: images may need some time after completion.",
    )
    evidence: SubmittedEvidence = Field(
        default_factory=dict,
        description="What is known of evaluations, by their eval_ids. It explains missing documents, at any time.",
    )


class BadId(BaseModel):
    """One of the texts that is no ID; the others do not suffer for it."""

    index: int = Field(description="Its place in eval_ids, from 0.")
    text: str = Field(description="The text, cut, and without control characters.")
    why: str = Field(description="What is wrong with it.")


class SubmitResponse(BaseModel):
    """What became of the IDs: each of them is counted once."""

    accepted: int = Field(description="Accepted now: each will end in exactly one outcome.")
    repeated: int = Field(description="Named more than once in this request.")
    under_way: int = Field(description="Accepted before and without an outcome yet; merged with that.")
    bad: list[BadId] = Field(description="No IDs.")


@dataclass(frozen=True, slots=True)
class _ParsedIds:
    good: tuple[str, ...]
    repeated: int
    bad: tuple[BadId, ...]
    facts: Mapping[str, EvaluationFacts]


@dataclass(frozen=True, slots=True)
class SubmitApi:
    """Where producers hand in IDs."""

    authenticate: CredentialCheck
    accounts: Accounts
    ledger: Ledger
    publisher: BackgroundPublisher
    idempotency: IdempotencyStore
    figures: HttpMetrics
    limits: HttpLimits

    async def submit(self, request: web.Request) -> web.Response:
        """Answer ``POST /evaluations``."""
        caller = self.authenticate.authenticate(request)
        body = await read_body(request, self.limits)
        wanted = _parse_body(parse_object(body, self.limits))
        resolve_account(self.accounts, wanted.account, 422)
        ids = _parse_ids(wanted)
        known_by = read_idempotency_key(request, caller, body)
        if known_by is None:
            return _respond(ids, await self._accept(wanted, ids))
        before = await self._soon(self.idempotency.begin(known_by))
        if before is not None:
            return _respond(ids, before, {"Idempotency-Replayed": "true"})
        return _respond(ids, await self._accept_once(wanted, ids, known_by))

    async def _accept_once(self, wanted: SubmitRequest, ids: _ParsedIds, known_by: IdempotencyKey) -> Mapping[str, int]:
        try:
            found = await self._accept(wanted, ids)
            await self._soon(self.idempotency.complete(known_by, found))
        except Exception:
            with contextlib.suppress(RedisError, OSError):
                await self._soon(self.idempotency.abandon(known_by))
            raise
        return found

    async def _accept(self, wanted: SubmitRequest, ids: _ParsedIds) -> Mapping[str, int]:
        """Accept what is good; return how many were new and how many under way."""
        queue = Queue(wanted.queue)
        account = resolve_account(self.accounts, wanted.account, 422).name
        trigger = Trigger("intake", run=wanted.run)
        order = EnqueueOptions(queue, account, trigger, refresh=wanted.refresh, delay=wanted.settle, facts=ids.facts)
        answers: list[int] = []
        for start in range(0, len(ids.good), _AT_ONCE):
            answers += await self._soon(self.ledger.accept_each(ids.good[start : start + _AT_ONCE], order))
        await self.publisher.publish(queue, select_published(ids.good, answers))
        under_way = answers.count(Acceptance.UNDER_WAY)
        found = {IdResult.ACCEPTED: len(answers) - under_way, IdResult.UNDER_WAY: under_way}
        for result, count in {**found, IdResult.REPEATED: ids.repeated, IdResult.BAD: len(ids.bad)}.items():
            self.figures.count_ids(result, count)
        return {result.value: count for result, count in found.items()}

    async def _soon(self, asked: Awaitable[T]) -> T:
        """Return what Redis answers within its time."""
        async with asyncio.timeout(self.limits.redis_seconds):
            return await asked


def _parse_body(body: dict[str, Any]) -> SubmitRequest:
    try:
        return SubmitRequest.model_validate(body)
    except ValidationError as error:
        # What is wrong, without the values; the names are the caller's own.
        sentences = [
            f"{printable_id(str(problem['loc'][0]))}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)[:5]
        ]
        raise HTTPError(422, "; ".join(sentences)) from None


def _parse_ids(wanted: SubmitRequest) -> _ParsedIds:
    good: dict[str, None] = {}
    bad: list[BadId] = []
    for index, text in enumerate(wanted.eval_ids):
        try:
            good[parse_eval_id(text)] = None
        except BadEvalId as error:
            bad.append(BadId(index=index, text=error.shown, why=error.why))
    try:
        facts = assign_facts(wanted.evidence, good, wanted.eval_ids)
    except ValueError as error:
        raise HTTPError(422, f"evidence: {error}") from None
    return _ParsedIds(tuple(good), len(wanted.eval_ids) - len(good) - len(bad), tuple(bad), facts)


def _respond(ids: _ParsedIds, found: Mapping[str, int], headers: Mapping[str, str] | None = None) -> web.Response:
    accepted = SubmitResponse(repeated=ids.repeated, bad=list(ids.bad), **found)
    return json_response(202 if ids.good else 422, accepted.model_dump(), headers)
