"""One evaluation looked up: where it is, its manifest, and for operators its pictures beside each other."""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from scripts.archive_access.revisions import NotExported, find_manifest
from scripts.serve.api.evaluations import read_eval_id
from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.roles import Caller, Role, log_access
from scripts.serve.http.responses import HTTPError
from scripts.serve.page.document_views import DocumentViews
from scripts.serve.page.paging import number_of
from scripts.serve.page.renderer import PageRenderer
from tasks.errors import StorageError
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest
from worker.config.accounts import Accounts

_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """Where a person asks for an evaluation."""

    renderer: PageRenderer
    bucket: Bucket
    ledger: Ledger
    pictures: DocumentViews
    accounts: Accounts

    async def show(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/evaluation``."""
        text, name = request.query.get("id", "").strip(), request.query.get("account") or None
        if not text:
            return self._render(caller)
        account = resolve_account(self.accounts, name, 400)
        evaluation = Evaluation(read_eval_id(text), account.settings.environment, account.name)
        log_access(caller, "evaluation.viewed", eval_id=evaluation.eval_id)
        revision = number_of(request, "revision") or None
        manifest = await self._manifest(evaluation, revision)
        ((state, cause),) = await self.ledger.locate([evaluation.eval_id])
        links = None
        if manifest and caller.role is Role.OPERATOR and "pictures" in request.query:
            links = [await self.pictures.link(caller, evaluation, document) for document in manifest.documents]
        return self._render(
            caller,
            eval_id=evaluation.eval_id,
            account=account.name if name else None,
            manifest=manifest,
            revision=revision,
            state=state,
            cause=cause,
            links=links,
        )

    def _render(self, caller: Caller, **facts: object) -> web.Response:
        nothing = {"eval_id": "", "account": None, "manifest": None, "revision": None, "links": None}
        found = {**nothing, "may_see": caller.role is Role.OPERATOR, **facts}
        return self.renderer.respond("evaluation.html.j2", caller, at="/page/evaluation", **found)

    async def _manifest(self, evaluation: Evaluation, revision: int | None) -> Manifest | None:
        try:
            async with asyncio.timeout(_SECONDS):
                committed = await find_manifest(self.bucket, evaluation, revision)
        except TimeoutError:
            raise StorageError("read", "timeout") from None
        except NotExported as error:
            raise HTTPError(404 if revision else 502, str(error)) from None
        return committed.manifest if committed else None
