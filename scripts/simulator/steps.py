"""The steps of a sequence of answers: each turns a request into one answer."""

import dataclasses
import datetime as dt
import email.utils
from collections.abc import Callable, Mapping
from typing import Any

from scripts.simulator import damage, messages
from scripts.simulator.answers import Delivery, SimulatedRequest, SimulatedResponse, json_answer
from scripts.simulator.bundles import bundle_of, documents_of
from scripts.simulator.scenarios import Scenario, eval_id_for

Step = Callable[[SimulatedRequest], SimulatedResponse]

_OK, _FOUND, _TOO_MANY = 200, 302, 429
_WAIT_SECONDS = 1
_OTHER_EVAL_ID = eval_id_for(Scenario.DOCUMENTED, 2**48 - 1)


def documents(question: SimulatedRequest) -> SimulatedResponse:
    """Answer with the documents."""
    return _bundle(question, bundle_of(question.eval_id, question.image_bytes))


def one_more_document(question: SimulatedRequest) -> SimulatedResponse:
    """Answer with the documents and one more attachment."""
    return _bundle(question, bundle_of(question.eval_id, question.image_bytes, changed=True))


def other_evaluation(question: SimulatedRequest) -> SimulatedResponse:
    """Answer with filename and documents of another evaluation."""
    return documents(dataclasses.replace(question, eval_id=_OTHER_EVAL_ID))


def damaged(how: Callable[[damage.Documents], bytes]) -> Step:
    """Return a step that answers with a damaged or unsafe bundle.

    Args:
        how: makes the bundle from the documents.
    """
    return lambda question: _bundle(question, how(documents_of(question.eval_id, question.image_bytes)))


def delivered(delivery: Delivery) -> Step:
    """Return a step that answers with the documents, and delivers them late, slowly or only in part."""
    return lambda question: dataclasses.replace(documents(question), delivery=delivery)


def error(status: int, body: Mapping[str, Any] | None = None) -> Step:
    """Return a step that answers with an error, by default with the usual body of its status."""
    return _fixed(json_answer(status, body))


def gateway(status: int) -> Step:
    """Return a step that answers as a load balancer whose backend does not answer."""
    return _fixed(SimulatedResponse(status, messages.GATEWAY_PAGE, {"Content-Type": "text/html"}))


def empty(status: int) -> Step:
    """Return a step that answers without a body and without a type, as Envoy does."""
    return _fixed(SimulatedResponse(status))


def page(_: SimulatedRequest) -> SimulatedResponse:
    """Answer with a page and status 200."""
    return SimulatedResponse(_OK, messages.PAGE, {"Content-Type": "text/html; charset=utf-8"})


def redirect(question: SimulatedRequest) -> SimulatedResponse:
    """Answer that the documents are elsewhere."""
    return SimulatedResponse(_FOUND, headers={"Location": question.elsewhere})


def wait(header: str | None = None) -> Step:
    """Return a step that asks to wait for a second.

    Args:
        header: the header with the seconds to wait; None for none.
    """
    headers = {header: str(_WAIT_SECONDS)} if header else {}
    return _fixed(json_answer(_TOO_MANY, messages.RATE_LIMITED, headers))


def wait_until(_: SimulatedRequest) -> SimulatedResponse:
    """Ask to wait until a date."""
    # A date has whole seconds: one second more makes the wait one to two seconds, never zero.
    then = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_WAIT_SECONDS + 1)
    when = email.utils.format_datetime(then, usegmt=True)
    return json_answer(_TOO_MANY, messages.RATE_LIMITED, {"Retry-After": when})


def _fixed(answer: SimulatedResponse) -> Step:
    return lambda _: answer


def _bundle(question: SimulatedRequest, body: bytes) -> SimulatedResponse:
    disposition = f"attachment; filename={question.eval_id}_document.zip"
    return SimulatedResponse(_OK, body, {"Content-Type": "application/zip", "Content-Disposition": disposition})
