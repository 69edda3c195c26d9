"""Request one evaluation that is known to have documents, and explain RiskOS's answer.

The request is sent, and its answer is read, with the code of a worker. But only the beginning of a bundle is read, and
nothing is stored.
"""

from http import HTTPStatus

import aiohttp

from scripts.doctor.finding import Finding, fine, warning, wrong
from scripts.doctor.riskos import NETWORK, acquire_permit, open_session
from tasks.errors import ArchiveError, BundleTooLarge, ConnectionFailed
from tasks.model.account import Account
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.riskos.download import DownloadOptions, download
from tasks.riskos.response import NoBundle, known_media_type
from worker.config.accounts_file import AccountSettings

_SUBJECT = "evaluation"
_SECONDS = 10.0
_MAX_BYTES = 65_536
_SHOWN = 200
_ZIP_TYPES = {"application/zip", "application/x-zip-compressed", "application/octet-stream"}
_OTHER_ENVIRONMENT = "check that DOCV_ENVIRONMENT, DOCV_RISKOS_URL and the key match the evaluation"
_NO_DOCUMENTS = (
    f"{_OTHER_ENVIRONMENT}, that DOCV_API_VERSION is the version you tested with, and that its workflow has the step "
    '"Socure Image Request"; if so, its images were deleted: try another evaluation'
)
_REFUSED = {
    HTTPStatus.UNAUTHORIZED: (
        "401: the key is not accepted",
        "check the key of this account, and that it belongs to its environment",
    ),
    HTTPStatus.FORBIDDEN: (
        "403: the key may not read this evaluation",
        'use the key of its sub-account or workflow; if "key at RiskOS" is 403, too, ask the vendor to allow this key',
    ),
}


async def examine(known: AccountSettings, eval_id: str) -> Finding:
    """Request an evaluation with an account, and return the finding."""
    account = Account.from_settings(known)
    if held := await acquire_permit(known.settings, account, _SUBJECT):
        return held
    options = DownloadOptions(
        total=_SECONDS,
        max_bundle_bytes=_MAX_BYTES,
        in_memory=_MAX_BYTES,
        no_documents_texts=known.settings.no_documents_texts,
        gateway_texts=known.settings.gateway_texts,
    )
    received: list[aiohttp.ClientResponse] = []
    async with open_session(known.settings, _record(received)) as http:
        try:
            answer = (await download(http, Evaluation(eval_id, account.environment), account, options)).result
        except ArchiveError as error:
            return _judge_error(error, received)
    if isinstance(answer, ArchiveError):
        return _judge_error(answer, received)
    if isinstance(answer, NoBundle):
        return judge_no_bundle(answer, account.api_version)
    return fine(_SUBJECT, f"delivered a ZIP with {answer.size:,} bytes")


def _record(received: list[aiohttp.ClientResponse]) -> aiohttp.TraceConfig:
    """Return a trace that records responses, for their status and headers."""

    async def keep(_session: object, _context: object, params: aiohttp.TraceRequestEndParams) -> None:
        received.append(params.response)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(keep)
    return trace


def _judge_error(error: ArchiveError, received: list[aiohttp.ClientResponse]) -> Finding:
    if isinstance(error, ConnectionFailed) or not received:
        return wrong(_SUBJECT, str(error), NETWORK, unreachable=True)
    response = received[-1]
    if isinstance(error, BundleTooLarge):
        return judge_bundle(response.content_type, response.content_length)
    return judge_status(response.status, str(error))


def judge_bundle(media_type: str, size: int | None) -> Finding:
    """Return whether a large body is a bundle, judged by its headers alone."""
    amount = f"{size:,} bytes" if size is not None else f"more than {_MAX_BYTES:,} bytes"
    if media_type in _ZIP_TYPES:
        return fine(_SUBJECT, f"delivered a ZIP with {amount}")
    return wrong(
        _SUBJECT,
        f"200 with {amount} of {known_media_type(media_type)}, not a ZIP",
        "check DOCV_RISKOS_URL and the proxy",
    )


def judge_status(status: int, message: str) -> Finding:
    """Return the finding for an answer that is neither a bundle nor "No Documents Found"."""
    if status in _REFUSED:
        return wrong(_SUBJECT, *_REFUSED[HTTPStatus(status)])
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return warning(_SUBJECT, "429: the rate or the day's quota is spent", "check DOCV_RATE, and try again later")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return warning(_SUBJECT, f"{status}: RiskOS failed", "try again later")
    return wrong(
        _SUBJECT, message, "check DOCV_RISKOS_URL, the proxy, and whether a gateway answers in place of RiskOS"
    )


def judge_no_bundle(answer: NoBundle, api_version: str | None) -> Finding:
    """Return the finding if RiskOS has no bundle of an evaluation that is known to have one."""
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in answer.message or "")[:_SHOWN]
    message = f"{answer.status} {text!r}" if text else str(answer.status)
    asked = f"asked with X-API-Version {api_version}" if api_version else "asked without X-API-Version"
    match answer.outcome:
        case Outcome.NO_DOCUMENTS:
            return wrong(_SUBJECT, f"{message}, although it should have documents ({asked})", _NO_DOCUMENTS)
        case Outcome.NOT_FOUND:
            return wrong(_SUBJECT, f"{message}: RiskOS does not know it", _OTHER_ENVIRONMENT)
        case _:
            return wrong(_SUBJECT, f"{message}: RiskOS refuses the request ({asked})", "check DOCV_API_VERSION")
