"""Report on one evaluation from the ledger and the archive, without any name from a bundle."""

import asyncio
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from redis.exceptions import RedisError

from scripts.overview.evaluation_status import EvaluationState, EvaluationStatus, look_up
from scripts.serve.auth.access_log import logged_access, producer
from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.credentials import CredentialCheck
from scripts.serve.http.responses import HTTPError, json_response
from tasks.errors import BadEvalId
from tasks.model.evaluation import Evaluation, parse_eval_id
from tasks.model.outcome import NoDocumentsReason, Outcome, Restriction, SourceStatus
from tasks.storage.bucket import Bucket
from worker.config.accounts import Accounts

_SECONDS = 10.0


class ArchivedEvaluation(BaseModel):
    """One evaluation as the ledger and the archive have it, without its legal holds, which are not for producers."""

    eval_id: str = Field(description="The evaluation.")
    state: EvaluationState | None = Field(
        description="State of the evaluation. A dead_letter is out of attempts: do not send it again; an operator "
        "redrives it. null if it is missing."
    )
    outcome: Outcome | Literal["erased", "disposed", "missing"] | None = Field(
        description="How it ended. null until it has ended, and while an archived evaluation is requested again. "
        "failed for a dead letter; disposed if the retention schedule disposed of all its documents; missing if "
        "neither the ledger nor the archive knows it."
    )
    cause: str | None = Field(
        description="A short fixed word: why its last attempt failed, or why something is not in the archive."
    )
    reason: NoDocumentsReason | None = Field(
        description="Why there are no documents, if that is known; null unless the outcome in the archive is "
        "no_documents or withheld."
    )
    restricted: Restriction | None = Field(
        description="Why the images must not be kept, if the archive holds documents of the evaluation; otherwise null."
    )
    next_attempt_at: str | None = Field(
        description="RFC 3339, UTC: when a parked evaluation is due, or when the hold of an evaluation on_hold ends "
        "or is probed next. null if unknown."
    )
    documents: int = Field(
        description="Documents in the archive, regardless of the state and of what RiskOS still has."
    )
    bytes: int = Field(description="Total size of the documents.")
    at_source: SourceStatus | None = Field(
        description="How many of the documents RiskOS had when last asked: all (present), some (partly_gone) or "
        "none (gone). The value none means that neither RiskOS nor the archive had any. null if there is no manifest."
    )
    manifest: str | None = Field(
        description="Key of the manifest, below the archive's prefix; null without a manifest."
    )
    disposed: int = Field(description="Documents that the retention schedule disposed of.")


@dataclass(frozen=True, slots=True)
class EvaluationsApi:
    """Reports the state and the outcome of an evaluation."""

    login: CredentialCheck
    redis: "Redis"
    bucket: Bucket
    accounts: Accounts

    async def show(self, request: web.Request) -> web.Response:
        """Answer ``GET /evaluations/{eval_id}``."""
        caller = producer(self.login.authenticate(request))
        account = resolve_account(self.accounts, request.query.get("account"), 400)
        evaluation = Evaluation(read_eval_id(request.match_info["eval_id"]), account.settings.environment)
        with logged_access(request, caller, "evaluation.viewed", eval_id=evaluation.eval_id):
            status = await self._look_up(evaluation)
        found = ArchivedEvaluation.model_validate(status.as_json())
        return json_response(200 if status.state else 404, found.model_dump())

    async def _look_up(self, evaluation: Evaluation) -> EvaluationStatus:
        try:
            async with asyncio.timeout(_SECONDS):
                return await look_up(self.redis, self.bucket, evaluation)
        except (RedisError, OSError):  # a TimeoutError is an OSError
            raise HTTPError(
                503, "Redis or the archive does not answer; try again later", {"Retry-After": "5"}
            ) from None


def read_eval_id(text: str) -> str:
    """Return an evaluation ID in its canonical form.

    Raises:
        HTTPError: the text is not an evaluation ID.
    """
    try:
        return parse_eval_id(text)
    except BadEvalId as error:
        raise HTTPError(400, error.why) from None
