"""What the archive has of one evaluation: figures and a key, and no name out of a bundle."""

import asyncio
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, Field

from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.credentials import CredentialCheck
from scripts.serve.http.responses import HTTPError, json_response
from tasks.errors import BadEvalId, StorageError
from tasks.model.evaluation import Evaluation, parse_eval_id
from tasks.model.outcome import Outcome
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, read_manifest
from worker.config.accounts import Accounts

_SECONDS = 10.0


class ArchivedEvaluation(BaseModel):
    """One evaluation as the archive has it."""

    eval_id: str = Field(description="The evaluation.")
    outcome: Outcome | Literal["missing"] = Field(description="How it ended; missing where there is no manifest.")
    documents: int = Field(default=0, description="Documents of the newest bundle.")
    bytes: int = Field(default=0, description="Their sizes, added up.")
    manifest: str | None = Field(default=None, description="Key of the manifest, below the archive's prefix.")


@dataclass(frozen=True, slots=True)
class EvaluationsApi:
    """Where one may ask what became of an evaluation."""

    login: CredentialCheck
    bucket: Bucket
    accounts: Accounts

    async def show(self, request: web.Request) -> web.Response:
        """Answer ``GET /evaluations/{eval_id}``."""
        self.login.authenticate(request)
        account = resolve_account(self.accounts, request.query.get("account"), 400)
        evaluation = Evaluation(read_eval_id(request.match_info["eval_id"]), account.settings.environment)
        try:
            async with asyncio.timeout(_SECONDS):
                committed = await read_manifest(self.bucket, evaluation)
        except TimeoutError:
            raise StorageError("read", "timeout") from None
        if committed is None:
            return json_response(404, ArchivedEvaluation(eval_id=evaluation.eval_id, outcome="missing").model_dump())
        return json_response(200, _summary(committed.manifest, evaluation.manifest_key).model_dump())


def read_eval_id(text: str) -> str:
    """Return the ID that somebody asks for.

    Raises:
        HTTPError: it is none.
    """
    try:
        return parse_eval_id(text)
    except BadEvalId as error:
        raise HTTPError(400, error.why) from None


def _summary(manifest: Manifest, key: str) -> ArchivedEvaluation:
    documents = [document for document in manifest.documents if not document.superseded]
    return ArchivedEvaluation(
        eval_id=manifest.eval_id,
        outcome=manifest.outcome,
        documents=len(documents),
        bytes=sum(document.size for document in documents),
        manifest=key,
    )
