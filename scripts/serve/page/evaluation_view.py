"""Look evaluations up: one with its manifest and, for operators, its pictures; or several as a table."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from scripts.archive_access.revisions import NotExported, find_manifest
from scripts.overview.evaluation_status import EvaluationStatus, look_up
from scripts.serve.api.evaluations import read_eval_id
from scripts.serve.auth.access_log import logged_access
from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.roles import Caller, Role
from scripts.serve.http.responses import HTTPError
from scripts.serve.page.document_views import DocumentViews
from scripts.serve.page.paging import number_of
from scripts.serve.page.renderer import PageRenderer
from tasks.errors import IntegrityError, StorageError
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.queueing.message import parse_eval_ids
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest
from worker.config.accounts import Accounts
from worker.config.accounts_file import AccountSettings

MOST_IDS = 50
"""Maximum number of evaluations in one look-up."""
_SECONDS = 10.0
_AT_ONCE = 16
_SEPARATORS = re.compile(r"[\s,;]+")


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """The page on which people look evaluations up."""

    renderer: PageRenderer
    bucket: Bucket
    ledger: Ledger
    pictures: DocumentViews
    accounts: Accounts

    async def show(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/evaluation``."""
        texts = [*dict.fromkeys(filter(None, _SEPARATORS.split(request.query.get("id", ""))))]
        if not texts:
            return self._render(request, caller)
        if len(texts) > MOST_IDS:
            raise HTTPError(400, f"at most {MOST_IDS} evaluations at once; for more: `docv-archive audit FILE`")
        account = resolve_account(self.accounts, request.query.get("account") or None, 400)
        if len(texts) > 1:
            return await self._show_several(request, caller, texts, account)
        return await self._show_one(request, caller, texts[0], account)

    async def _show_one(
        self, request: web.Request, caller: Caller, text: str, account: AccountSettings
    ) -> web.Response:
        evaluation = Evaluation(read_eval_id(text), account.settings.environment, account.name)
        revision = number_of(request, "revision") or None
        with logged_access(request, caller, "evaluation.viewed", eval_id=evaluation.eval_id, revision=revision):
            manifest = latest = await self._manifest(evaluation, revision)
            if revision:
                latest = await self._manifest(evaluation, None)
            ((state, cause),) = await self.ledger.locate([evaluation.eval_id])
            letters = await self.ledger.dead_letters.get_many([evaluation.eval_id]) if state == "dead" else []
        gone = {document.key for document in latest.disposed} if latest else set()
        links = None
        if manifest and caller.role is Role.OPERATOR and "pictures" in request.query:
            links = {
                document.key: await self.pictures.link(caller, evaluation, document)
                for document in manifest.documents
                if document.key not in gone
            }
        return self._render(
            request,
            caller,
            asked=evaluation.eval_id,
            eval_id=evaluation.eval_id,
            manifest=manifest,
            revision=revision,
            state=state,
            cause=cause,
            letter=letters[0] if letters else None,
            links=links,
            gone=gone,
        )

    async def _show_several(
        self, request: web.Request, caller: Caller, texts: Sequence[str], account: AccountSettings
    ) -> web.Response:
        eval_ids, invalid = parse_eval_ids(texts)
        with logged_access(request, caller, "evaluations.viewed", eval_ids=eval_ids):
            at_once = asyncio.Semaphore(_AT_ONCE)

            async def read(eval_id: str) -> EvaluationStatus | str:
                async with at_once:
                    try:
                        evaluation = Evaluation(eval_id, account.settings.environment)
                        return await look_up(self.ledger.redis, self.bucket, evaluation)
                    except IntegrityError as error:
                        return str(error)

            try:
                async with asyncio.timeout(_SECONDS):
                    found = await asyncio.gather(*map(read, eval_ids))
            except TimeoutError:
                raise StorageError("read", "timeout") from None
        return self._render(
            request,
            caller,
            asked=" ".join(texts),
            found=dict(zip(eval_ids, found, strict=True)),
            invalid=len(invalid),
        )

    def _render(self, request: web.Request, caller: Caller, **facts: object) -> web.Response:
        names = ("manifest", "revision", "links", "gone", "state", "cause", "letter")
        nothing: dict[str, object] = {"asked": "", "eval_id": "", "found": {}, "invalid": 0, **dict.fromkeys(names)}
        known = {"account": request.query.get("account") or None, "may_see": caller.role is Role.OPERATOR}
        return self.renderer.respond("evaluation.html.j2", caller, at="/page/evaluation", **nothing | known | facts)

    async def _manifest(self, evaluation: Evaluation, revision: int | None) -> Manifest | None:
        try:
            async with asyncio.timeout(_SECONDS):
                committed = await find_manifest(self.bucket, evaluation, revision)
        except TimeoutError:
            raise StorageError("read", "timeout") from None
        except NotExported as error:
            raise HTTPError(404 if revision else 502, str(error)) from None
        return committed.manifest if committed else None
