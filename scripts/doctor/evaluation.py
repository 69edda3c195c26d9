"""Examine one evaluation that is known to have documents: the answer says what is not set up as it has to be.

One request is sent and read as a worker would, except that of a bundle only the beginning is read, and nothing is kept.
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
from tasks.riskos.response import Bundle, NoBundle
from worker.config.accounts_file import AccountSettings

_SUBJECT = "evaluation"
_SECONDS = 10.0
_MOST = 65_536
_SHOWN = 200
_ZIP_TYPES = {"application/zip", "application/x-zip-compressed", "application/octet-stream"}
_OTHER_ENVIRONMENT = "see that DOCV_ENVIRONMENT, DOCV_RISKOS_URL and the key are those it was made with"
_NO_DOCUMENTS = (
    f"{_OTHER_ENVIRONMENT}, that DOCV_API_VERSION is the version you tested with, and that its workflow has the step "
    '"Socure Image Request"; if so, its images were deleted: try another evaluation'
)
_REFUSED = {
    HTTPStatus.UNAUTHORIZED: (
        "401: the key is not accepted",
        "see the key of this account, and that it belongs to its environment",
    ),
    HTTPStatus.FORBIDDEN: (
        "403: the key may not read this evaluation",
        'use the key of its sub-account or workflow; if "key at RiskOS" says 403, too, have the vendor permit this key',
    ),
}


async def examine(known: AccountSettings, eval_id: str) -> Finding:
    """Return what RiskOS answers about an evaluation, asked with an account."""
    account = Account.from_settings(known)
    if held := await acquire_permit(known.settings, account, _SUBJECT):
        return held
    options = DownloadOptions(
        total=_SECONDS,
        max_bundle_bytes=_MOST,
        in_memory=_MOST,
        no_documents_texts=known.settings.no_documents_texts,
        gateway_texts=known.settings.gateway_texts,
    )
    received: list[aiohttp.ClientResponse] = []
    async with open_session(known.settings, _record(received)) as http:
        try:
            answer = await download(http, Evaluation(eval_id, account.environment), account, options)
        except ArchiveError as error:
            return _judge_error(error, received)
    if isinstance(answer, Bundle):
        return fine(_SUBJECT, f"delivered a ZIP with {answer.size:,} bytes")
    return judge_no_bundle(answer, account.api_version)


def _record(received: list[aiohttp.ClientResponse]) -> aiohttp.TraceConfig:
    """Return what keeps the response, for its status and headers."""

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
    """Return whether a large body is a bundle, told from its headers alone."""
    amount = f"{size:,} bytes" if size is not None else f"more than {_MOST:,} bytes"
    if media_type in _ZIP_TYPES:
        return fine(_SUBJECT, f"delivered a ZIP with {amount}")
    return wrong(_SUBJECT, f"200 with {amount} of {media_type}, not a ZIP", "see DOCV_RISKOS_URL and the proxy")


def judge_status(status: int, message: str) -> Finding:
    """Return what a status means that is neither a bundle nor RiskOS's word that there is none."""
    if status in _REFUSED:
        return wrong(_SUBJECT, *_REFUSED[HTTPStatus(status)])
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return warning(_SUBJECT, "429: the rate or the day's quota is spent", "see DOCV_RATE, and try later")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return warning(_SUBJECT, f"{status}: RiskOS has a fault", "try again later")
    return wrong(_SUBJECT, message, "see DOCV_RISKOS_URL, the proxy and whether a gateway answers in RiskOS's place")


def judge_no_bundle(answer: NoBundle, api_version: str | None) -> Finding:
    """Return what it means that RiskOS says there is no bundle of an evaluation which is known to have one."""
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in answer.message or "")[:_SHOWN]
    said = f"{answer.status} {text!r}" if text else str(answer.status)
    asked = f"asked with X-API-Version {api_version}" if api_version else "asked without X-API-Version"
    match answer.outcome:
        case Outcome.NO_DOCUMENTS:
            return wrong(_SUBJECT, f"{said}, although it is known to have documents ({asked})", _NO_DOCUMENTS)
        case Outcome.NOT_FOUND:
            return wrong(_SUBJECT, f"{said}: RiskOS does not know it", _OTHER_ENVIRONMENT)
        case _:
            return wrong(_SUBJECT, f"{said}: RiskOS refuses the request ({asked})", "see DOCV_API_VERSION")
