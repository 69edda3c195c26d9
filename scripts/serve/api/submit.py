"""Accept evaluation IDs over HTTP: each accepted ID is in the ledger before the response is sent."""

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
from scripts.serve.auth.access_log import logged_access, producer
from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.credentials import CredentialCheck
from scripts.serve.http.body import check_unicode, explain_mismatch, parse_object, read_body
from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError, json_response
from scripts.serve.metrics import HttpMetrics, IdResult
from tasks.errors import BadEvalId, BadRunName
from tasks.ledger.ledger import Ledger
from tasks.ledger.serialization import Acceptance, select_published
from tasks.model.evaluation import parse_eval_id
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.run_name import parse_run
from tasks.model.submitted_facts import SubmittedEvidence, assign_facts
from worker.config.accounts import Accounts
from worker.config.settings import MAX_SETTLE_SECONDS

T = TypeVar("T")
MOST_IDS = 10_000
"""Maximum number of IDs in one request."""
_AT_ONCE = 1_000


def _parse_run(name: str) -> str:
    try:
        return parse_run(name)
    except BadRunName as error:
        raise ValueError(str(error)) from None


# Typed as Any: a value that is not a string is reported for that ID alone, like any other invalid ID.
_IdText = Annotated[Any, WithJsonSchema({"type": "string", "format": "uuid"})]


class SubmitRequest(BaseModel):
    """The body of a request that submits evaluation IDs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    eval_ids: list[_IdText] = Field(min_length=1, max_length=MOST_IDS, description="Evaluations to archive.")
    queue: Literal["live", "backfill"] = Field(
        default="live", description="Queue to put them on: live goes before backfill."
    )
    run: Annotated[str, AfterValidator(_parse_run)] | None = Field(
        default=None, description="Name to count them under: 1 to 64 letters, digits, dots, hyphens and underscores."
    )
    refresh: bool = Field(default=False, description="Ask RiskOS again about evaluations that are archived already.")
    account: str | None = Field(
        default=None, description="Name of the account; by default the account default, or the only one."
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
        description="Evidence by eval_id. It explains missing documents, and may be sent at any time.",
    )


class BadId(BaseModel):
    """A submitted value that is not a valid ID; the other IDs are accepted."""

    index: int = Field(description="Its index in eval_ids, counted from 0.")
    text: str = Field(description="The value, truncated, without control characters.")
    why: str = Field(description="Why it is not valid.")


class SubmitResponse(BaseModel):
    """The results of the submitted IDs, each counted once."""

    accepted: int = Field(description="Accepted now: each will end in exactly one outcome.")
    repeated: int = Field(description="Duplicates within this request.")
    under_way: int = Field(description="Already accepted and without an outcome yet; merged with the earlier order.")
    bad: list[BadId] = Field(description="Values that are not valid IDs.")


@dataclass(frozen=True, slots=True)
class _ParsedIds:
    good: tuple[str, ...]
    repeated: int
    bad: tuple[BadId, ...]
    facts: Mapping[str, EvaluationFacts]


@dataclass(frozen=True, slots=True)
class SubmitApi:
    """Accepts evaluation IDs from producers."""

    authenticate: CredentialCheck
    accounts: Accounts
    ledger: Ledger
    publisher: BackgroundPublisher
    idempotency: IdempotencyStore
    metrics: HttpMetrics
    limits: HttpLimits

    async def submit(self, request: web.Request) -> web.Response:
        """Answer ``POST /evaluations``."""
        caller = self.authenticate.authenticate(request)
        body = await read_body(request, self.limits)
        wanted = _parse_body(check_unicode(body, parse_object(body, self.limits)))
        resolve_account(self.accounts, wanted.account, 422)
        ids = _parse_ids(wanted)
        known_by = read_idempotency_key(request, caller, body)
        facts = {"run": wanted.run, "evaluations": len(ids.good)}
        with logged_access(request, producer(caller), "evaluations.submitted", **facts) as logged:
            if known_by is None:
                found, replayed = await self._accept(wanted, ids), False
            else:
                found, replayed = await self._accept_known(wanted, ids, known_by)
            logged |= {**found, "replayed": replayed}
        return _respond(ids, found, {"Idempotency-Replayed": "true"} if replayed else None)

    async def _accept_known(
        self, wanted: SubmitRequest, ids: _ParsedIds, known_by: IdempotencyKey
    ) -> tuple[Mapping[str, int], bool]:
        """Accept the valid IDs unless this request was processed before; return the counts, and whether it was."""
        before = await self._with_timeout(self.idempotency.begin(known_by))
        if before is not None:
            return before, True
        return await self._accept_once(wanted, ids, known_by), False

    async def _accept_once(self, wanted: SubmitRequest, ids: _ParsedIds, known_by: IdempotencyKey) -> Mapping[str, int]:
        try:
            found = await self._accept(wanted, ids)
            await self._with_timeout(self.idempotency.complete(known_by, found))
        except Exception:
            with contextlib.suppress(RedisError, OSError):
                await self._with_timeout(self.idempotency.abandon(known_by))
            raise
        return found

    async def _accept(self, wanted: SubmitRequest, ids: _ParsedIds) -> Mapping[str, int]:
        """Accept the valid IDs; return the numbers of new ones and of ones under way."""
        queue = Queue(wanted.queue)
        account = resolve_account(self.accounts, wanted.account, 422).name
        trigger = Trigger("intake", run=wanted.run)
        order = EnqueueOptions(queue, account, trigger, refresh=wanted.refresh, delay=wanted.settle, facts=ids.facts)
        answers: list[int] = []
        for start in range(0, len(ids.good), _AT_ONCE):
            answers += await self._with_timeout(self.ledger.accept_each(ids.good[start : start + _AT_ONCE], order))
        await self.publisher.publish(queue, select_published(ids.good, answers))
        under_way = answers.count(Acceptance.UNDER_WAY)
        found = {IdResult.ACCEPTED: len(answers) - under_way, IdResult.UNDER_WAY: under_way}
        for result, count in {**found, IdResult.REPEATED: ids.repeated, IdResult.BAD: len(ids.bad)}.items():
            self.metrics.count_ids(result, count)
        return {result.value: count for result, count in found.items()}

    async def _with_timeout(self, command: Awaitable[T]) -> T:
        """Await a command to Redis, with the time limit for Redis."""
        async with asyncio.timeout(self.limits.redis_seconds):
            return await command


def _parse_body(body: dict[str, Any]) -> SubmitRequest:
    try:
        return SubmitRequest.model_validate(body)
    except ValidationError as error:
        raise HTTPError(422, explain_mismatch(error)) from None


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
