"""The OpenAPI document of the HTTP API; ``docs/openapi.json`` is a copy.

The application creates its routes from the same table, so no route is missing from the document.
"""

import functools
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from scripts.serve.api.evaluations import ArchivedEvaluation
from scripts.serve.api.idempotency import HEADER
from scripts.serve.api.retention_events import EventRequest, EventResponse
from scripts.serve.api.submit import SubmitRequest, SubmitResponse
from scripts.serve.http.responses import json_response

_REFERENCE = "#/components/schemas/{model}"
_MODELS = (SubmitRequest, SubmitResponse, ArchivedEvaluation, EventRequest, EventResponse)
_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_RESULT = {"type": "object", "properties": {"result": {"type": "string"}}, "required": ["result"]}
_FLAGS = {"type": "object", "additionalProperties": {"type": "boolean"}}
_EVENT = {
    "type": "object",
    "description": "An event from RiskOS. event_id, event_at, event_type, data.eval_id and data.environment_name are "
    "read, and three facts that explain missing documents; nothing else is kept.",
}
_BODY_ERRORS = {
    400: "The body is not a JSON object, or is incomplete.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is compressed.",
}
_NOT_NOW = {503: "Redis does not answer, or is full; consider nothing accepted. Retry-After says when to retry."}
_NO_ACCOUNT = {404: "The account does not exist, or none is named and there is no default."}
_LOGIN = {
    401: "The request has no valid secret.",
    429: "Too many requests with a wrong secret. A request with a valid secret never gets this answer.",
}
_EVENT_ERRORS = _LOGIN | _BODY_ERRORS | _NO_ACCOUNT | _NOT_NOW
_WEBHOOK = ("webhookToken", "webhookPair")
# For clients that support only Basic authentication, a token also works as the password of any user name.
_KNOWN = ("intakeToken", "viewerToken", "viewerPair", "operatorToken", "operatorPair")
_KEY_PARAMETER = {
    "name": HEADER,
    "in": "header",
    "description": "The same key with the same body within 24 hours gets the same answer, and is processed once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_ACCOUNT = "Name of an account of DOCV_ACCOUNTS."
_TEXT = {"type": "string"}
_ACCOUNT_IN_PATH = {"name": "account", "in": "path", "required": True, "description": _ACCOUNT, "schema": _TEXT}
_ACCOUNT_PARAMETER = {
    "name": "account",
    "in": "query",
    "description": f"{_ACCOUNT} By default the account default, or the only one.",
    "schema": _TEXT,
}
_ID_PARAMETER = {"name": "eval_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}

Schema = type[BaseModel] | Mapping[str, Any]


def _json(schema: Schema) -> dict[str, Any]:
    if isinstance(schema, type):
        return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=schema.__name__)}}}
    return {"application/json": {"schema": dict(schema)}}


def _operation(
    name: str,
    summary: str,
    answers: Mapping[int, tuple[str, Schema | None]],
    errors: Mapping[int, str],
    login: Sequence[str],
    *,
    body: Schema | None = None,
    parameters: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return one operation as OpenAPI describes it.

    Args:
        name: its operationId, by which the application and generated clients know it.
        summary: a sentence about it.
        answers: description and schema of each successful status; a schema of None means plain text.
        errors: description of each error status.
        login: names of the accepted security schemes; empty for a public operation.
        body: schema of the body.
        parameters: parameters in headers, path and query.
    """
    responses = {
        str(status): {"description": what, "content": {"text/plain": {}} if schema is None else _json(schema)}
        for status, (what, schema) in answers.items()
    }
    responses |= {str(status): {"description": what, "content": _json(_ERROR)} for status, what in errors.items()}
    described: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": dict(sorted(responses.items())),
        "security": [{way: []} for way in login],
    }
    if body is not None:
        described["requestBody"] = {"required": True, "content": _json(body)}
    if parameters:
        described["parameters"] = list(parameters)
    return described


PATHS = {
    "/webhooks/riskos": {
        "post": _operation(
            "receive_event",
            "Deliver an event from RiskOS; it is stored before the answer.",
            {200: ("The result.", _RESULT)},
            _EVENT_ERRORS,
            _WEBHOOK,
            body=_EVENT,
        )
    },
    "/webhooks/riskos/{account}": {
        "post": _operation(
            "receive_event_of_account",
            "Deliver an event from RiskOS about an evaluation of an account.",
            {200: ("The result.", _RESULT)},
            _EVENT_ERRORS,
            _WEBHOOK,
            body=_EVENT,
            parameters=[_ACCOUNT_IN_PATH],
        )
    },
    "/evaluations": {
        "post": _operation(
            "hand_in",
            "Submit evaluations for archiving.",
            {
                202: ("The valid IDs are accepted; each will end in one outcome.", SubmitResponse),
                422: (
                    "None of the IDs is valid; or, with an error, the body does not match the schema.",
                    SubmitResponse,
                ),
            },
            _LOGIN | _BODY_ERRORS | {409: "A request with the same Idempotency-Key is being processed."} | _NOT_NOW,
            ["intakeToken"],
            body=SubmitRequest,
            parameters=[_KEY_PARAMETER],
        )
    },
    "/evaluations/{eval_id}": {
        "get": _operation(
            "show_evaluation",
            "Look up an evaluation in the ledger and in the archive.",
            {
                200: ("Its state, its outcome, and its documents in the archive.", ArchivedEvaluation),
                404: ("Missing: neither the ledger nor the archive knows it.", ArchivedEvaluation),
            },
            _LOGIN
            | {
                400: "The evaluation ID is not valid, or the account does not exist.",
                502: "The manifest is damaged.",
                503: "Redis or the archive does not answer. Retry-After says when to retry.",
            },
            ["intakeToken"],
            parameters=[_ID_PARAMETER, _ACCOUNT_PARAMETER],
        )
    },
    "/evaluations/{eval_id}/events": {
        "post": _operation(
            "report_event",
            "Report an event that starts a clock of the retention schedule, correct it, or withdraw it.",
            {
                200: ("The archive already had the same report.", EventResponse),
                201: ("The event is recorded in the archive.", EventResponse),
            },
            _LOGIN
            | _BODY_ERRORS
            | {
                400: "The evaluation ID is not valid, the account does not exist, or the body is not a JSON object.",
                403: "The secret is valid, but does not allow this request.",
                404: "The evaluation is not in the archive, or was erased.",
                409: "There is no retention schedule.",
                422: "The body does not match the schema, the schedule has no such event, or its date is not valid.",
                502: "The manifest, or an earlier event, is damaged.",
                503: "The archive does not answer. Retry-After says when to retry.",
            },
            ["recordsToken", "operatorToken", "operatorPair"],
            body=EventRequest,
            parameters=[_ID_PARAMETER, _ACCOUNT_PARAMETER],
        )
    },
    "/openapi.json": {
        "get": _operation(
            "show_document",
            "Return this document.",
            {200: ("The OpenAPI document.", {"type": "object"})},
            _LOGIN,
            _KNOWN,
        )
    },
    "/livez": {
        "get": _operation("live", "Return whether the process is alive.", {200: ("It is alive.", _FLAGS)}, {}, ())
    },
    "/readyz": {
        "get": _operation(
            "ready",
            "Return whether Redis and the archive answer.",
            {200: ("Both answer.", _FLAGS), 503: ("Services that do not answer are false.", _FLAGS)},
            _LOGIN,
            _KNOWN,
        )
    },
    "/metrics": {
        "get": _operation("metrics", "Return metrics for Prometheus.", {200: ("The metrics.", None)}, _LOGIN, _KNOWN)
    },
}
"""Every route except those of the operations page, which is for people."""


@functools.cache  # building it blocks the event loop for ten milliseconds
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    _, schemas = models_json_schema([(model, "serialization") for model in _MODELS], ref_template=_REFERENCE)
    bearer, basic = {"type": "http", "scheme": "bearer"}, {"type": "http", "scheme": "basic"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "docv-archive",
            "description": "The HTTP API of docv-archive for other systems.",
            "version": version("docv-archive"),
        },
        "paths": PATHS,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "webhookToken": bearer,
                "webhookPair": basic,
                "intakeToken": bearer,
                "viewerToken": bearer,
                "viewerPair": basic,
                "operatorToken": bearer,
                "operatorPair": basic,
                "recordsToken": bearer,
            },
        },
    }


async def show_document(_: web.Request) -> web.Response:
    """Answer ``GET /openapi.json``."""
    return json_response(200, document())
