"""Show documents to operators: by links that work for ten minutes and for one operator; each access is logged first."""

import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import structlog
from aiohttp import web

from scripts.archive_access.extensions import extension_of
from scripts.archive_access.revisions import NotExported, check_key
from scripts.serve.api.evaluations import read_eval_id
from scripts.serve.auth.access_log import logged_access
from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.roles import Caller, Role
from scripts.serve.http.responses import HTTPError
from scripts.serve.page.paging import number_of
from scripts.serve.page.renderer import HEADERS
from scripts.serve.page.signer import PageSigner
from tasks.errors import IntegrityError, SealingKeyMissing, StorageError
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import read_manifest
from tasks.storage.manifest_records import DocumentRecord
from worker.config.accounts import Accounts

_log = structlog.get_logger("docv.serve")
_LINK_SECONDS = 600
_PICTURE = "picture"
SHOWN = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"})
"""Types that a browser displays and does not run; all others are downloads."""


@dataclass(frozen=True, slots=True)
class DocumentLink:
    """A link to a document.

    Attributes:
        path: the path of its URL, with the query.
        drawn: whether a browser displays it.
    """

    path: str
    drawn: bool


@dataclass(frozen=True, slots=True)
class DocumentViews:
    """Makes links to documents, and shows documents.

    Attributes:
        manifests: the archive's bucket.
        documents: the same bucket, which decrypts sealed documents.
        now: seconds since the epoch.
    """

    manifests: Bucket
    documents: Bucket
    signer: PageSigner
    accounts: Accounts
    now: Callable[[], float] = time.time

    async def link(self, caller: Caller, evaluation: Evaluation, document: DocumentRecord) -> DocumentLink:
        """Return a link to a document that works for ten minutes, for this caller only."""
        until = str(int(self.now()) + _LINK_SECONDS)
        place, account = (evaluation.eval_id, document.kind, document.sha256), evaluation.account
        signature = await self.signer.sign(_PICTURE, caller.known_by, *place, account, until)
        asked = f"account={account}&until={until}&by={signature}"
        return DocumentLink(f"/page/pictures/{'/'.join(place)}?{asked}", document.media_type in SHOWN)

    async def show(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Answer ``GET /page/pictures/{eval_id}/{kind}/{sha256}``."""
        if caller.role is not Role.OPERATOR:
            raise HTTPError(403, "only operators may see documents")
        evaluation, kind, sha256 = await self._place(request, caller)
        place = {"eval_id": evaluation.eval_id, "kind": kind, "sha256": sha256}
        with logged_access(request, caller, "document.viewed", **place) as logged:
            response, logged["whole"] = await self._show(request, evaluation, kind, sha256)
            return response

    async def _show(
        self, request: web.Request, evaluation: Evaluation, kind: str, sha256: str
    ) -> tuple[web.StreamResponse, bool]:
        """Send a document; return the response, and whether it was sent completely."""
        document = await self._document(evaluation, kind, sha256)
        pieces = await self.documents.stream(document.key)
        if pieces is None:
            raise HTTPError(
                404, "the manifest lists this document, but it is not in the archive; run `docv-archive verify`"
            )
        async with contextlib.aclosing(pieces), contextlib.aclosing(_verify_chunks(pieces, document)) as checked:
            # An error in the first chunk can still be answered with an error page.
            try:
                first = await anext(checked)
            except SealingKeyMissing as error:
                raise HTTPError(503, str(error)) from None
            return await _respond(request, document, first, checked)

    async def _place(self, request: web.Request, caller: Caller) -> tuple[Evaluation, str, str]:
        """Return the document that a link is for.

        Raises:
            HTTPError: the link is not valid, of another caller, or too old.
        """
        place = tuple(request.match_info[name] for name in ("eval_id", "kind", "sha256"))
        account, until = request.query.get("account", ""), request.query.get("until", "")
        if not await self.signer.is_valid(
            request.query.get("by", ""), _PICTURE, caller.known_by, *place, account, until
        ):
            raise HTTPError(403, "this link is not valid for your login; look the evaluation up again")
        if number_of(request, "until") < self.now():
            raise HTTPError(410, "this link has expired; look the evaluation up again")
        environment = resolve_account(self.accounts, account, 400).settings.environment
        return Evaluation(read_eval_id(place[0]), environment), place[1], place[2]

    async def _document(self, evaluation: Evaluation, kind: str, sha256: str) -> DocumentRecord:
        committed = await read_manifest(self.manifests, evaluation)
        documents = committed.manifest.documents if committed else ()
        found = next((each for each in documents if (each.kind, each.sha256) == (kind, sha256)), None)
        disposed = committed.manifest.disposed if committed and found is None else ()
        if gone := next((each for each in disposed if (each.kind, each.sha256) == (kind, sha256)), None):
            raise HTTPError(404, f"it was disposed of on {gone.disposed_at[:10]} under the rule {gone.rule}")
        if found is None:
            raise HTTPError(404, "the manifest no longer lists this document")
        try:
            check_key(evaluation, found)
        except NotExported as error:
            raise HTTPError(502, str(error)) from None
        return found


async def _verify_chunks(pieces: AsyncGenerator[bytes, None], document: DocumentRecord) -> AsyncGenerator[bytes, None]:
    """Yield a document's bytes, the last chunk only if size and hash are those that were archived."""
    digest, size, last = hashlib.sha256(), 0, b""
    async for piece in pieces:
        digest.update(piece)
        size += len(piece)
        if size > document.size:
            break
        if last:
            yield last
        last = piece
    if (size, digest.hexdigest()) != (document.size, document.sha256):
        raise IntegrityError("a document differs from the archived one")
    yield last


async def _respond(
    request: web.Request, document: DocumentRecord, first: bytes, others: AsyncGenerator[bytes, None]
) -> tuple[web.StreamResponse, bool]:
    response = web.StreamResponse(headers=_headers(document))
    await response.prepare(request)
    await response.write(first)
    try:
        async for piece in others:
            await response.write(piece)
    except (StorageError, IntegrityError, SealingKeyMissing) as error:
        # The headers are sent: the connection is cut so that the document does not look complete.
        _log.error("document.not_shown", error=type(error).__name__)
        response.force_close()
        if request.transport:
            request.transport.abort()
        return response, False
    return response, True


def _headers(document: DocumentRecord) -> dict[str, str]:
    drawn = document.media_type in SHOWN
    name = f"{document.kind}-{document.sha256[:12]}.{extension_of(document)}"
    return {
        **HEADERS,
        "Content-Disposition": f'{"inline" if drawn else "attachment"}; filename="{name}"',
        "Content-Type": document.media_type if drawn else "application/octet-stream",
        "Content-Length": str(document.size),
    }
