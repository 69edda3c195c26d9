"""A document shown to an operator: by a link that lives some minutes, for them alone, and written down first."""

import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import structlog
from aiohttp import web

from scripts.archive_access.revisions import NotExported, check_key, extension_of
from scripts.serve.api.evaluations import read_eval_id
from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.roles import Caller, Role, log_access
from scripts.serve.http.responses import HTTPError
from scripts.serve.page.paging import number_of
from scripts.serve.page.renderer import HEADERS
from scripts.serve.page.signer import PageSigner
from tasks.errors import IntegrityError, SealingKeyMissing, StorageError
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import DocumentRecord, read_manifest
from worker.config.accounts import Accounts

_log = structlog.get_logger("docv.serve")
_LINK_SECONDS = 600
_PICTURE = "picture"
SHOWN = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"})
"""What a browser draws and cannot run; everything else is handed over as a file."""


@dataclass(frozen=True, slots=True)
class DocumentLink:
    """Where an operator finds a document.

    Attributes:
        path: the address.
        drawn: whether a browser draws it.
    """

    path: str
    drawn: bool


@dataclass(frozen=True, slots=True)
class DocumentViews:
    """Gives links to documents, and shows them.

    Attributes:
        manifests: the archive's bucket.
        documents: the same, which opens what is sealed.
        now: seconds since the epoch.
    """

    manifests: Bucket
    documents: Bucket
    signer: PageSigner
    accounts: Accounts
    now: Callable[[], float] = time.time

    async def link(self, caller: Caller, evaluation: Evaluation, document: DocumentRecord) -> DocumentLink:
        """Return where a document is shown to this caller, for some minutes."""
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
        document = await self._document(evaluation, kind, sha256)
        pieces = await self.documents.stream(document.key)
        if pieces is None:
            raise HTTPError(404, "the manifest names it, and it is not in the archive; a person has to look")
        async with contextlib.aclosing(pieces), contextlib.aclosing(_verify_chunks(pieces, document)) as checked:
            # What is wrong from the start can still be told.
            try:
                first = await anext(checked)
            except SealingKeyMissing as error:
                raise HTTPError(503, str(error)) from None
            log_access(caller, "document.viewed", eval_id=evaluation.eval_id, kind=document.kind)
            return await _respond(request, document, first, checked)

    async def _place(self, request: web.Request, caller: Caller) -> tuple[Evaluation, str, str]:
        """Return which document a link is for.

        Raises:
            HTTPError: it is not one of ours, of somebody else, or too old.
        """
        place = tuple(request.match_info[name] for name in ("eval_id", "kind", "sha256"))
        account, until = request.query.get("account", ""), request.query.get("until", "")
        if not await self.signer.is_valid(
            request.query.get("by", ""), _PICTURE, caller.known_by, *place, account, until
        ):
            raise HTTPError(403, "this link is not yours; look the evaluation up")
        if number_of(request, "until") < self.now():
            raise HTTPError(410, "this link has run out; look the evaluation up again")
        environment = resolve_account(self.accounts, account, 400).settings.environment
        return Evaluation(read_eval_id(place[0]), environment), place[1], place[2]

    async def _document(self, evaluation: Evaluation, kind: str, sha256: str) -> DocumentRecord:
        committed = await read_manifest(self.manifests, evaluation)
        documents = committed.manifest.documents if committed else ()
        found = next((each for each in documents if (each.kind, each.sha256) == (kind, sha256)), None)
        if found is None:
            raise HTTPError(404, "the manifest names no such document any more")
        try:
            check_key(evaluation, found)
        except NotExported as error:
            raise HTTPError(502, str(error)) from None
        return found


async def _verify_chunks(pieces: AsyncGenerator[bytes, None], document: DocumentRecord) -> AsyncGenerator[bytes, None]:
    """Yield a document's bytes; the last of them only once all are known to be those that were archived."""
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
        raise IntegrityError("a document is not the one that was archived")
    yield last


async def _respond(
    request: web.Request, document: DocumentRecord, first: bytes, others: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    response = web.StreamResponse(headers=_headers(document))
    await response.prepare(request)
    await response.write(first)
    try:
        async for piece in others:
            await response.write(piece)
    except (StorageError, IntegrityError, SealingKeyMissing) as error:
        # The headers are out: all that is left is to let nobody take it for whole.
        _log.error("document.not_shown", error=type(error).__name__)
        response.force_close()
        if request.transport:
            request.transport.abort()
    return response


def _headers(document: DocumentRecord) -> dict[str, str]:
    drawn = document.media_type in SHOWN
    name = f"{document.kind}-{document.sha256[:12]}.{extension_of(document)}"
    return {
        **HEADERS,
        "Content-Disposition": f'{"inline" if drawn else "attachment"}; filename="{name}"',
        "Content-Type": document.media_type if drawn else "application/octet-stream",
        "Content-Length": str(document.size),
    }
