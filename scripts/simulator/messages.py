"""The bodies of errors, in every shape that has been seen from RiskOS."""

from typing import Any

from scripts.simulator.scenarios import Scenario

Body = dict[str, Any]

_REFERENCE = "6f1c2a9e-0d57-4a7b-9f63-2f4f6f1d8c11"
_NONE_FOUND = "No Documents Found"
_NONE_FOUND_OLDER = "No Documents found"
_UNSUPPORTED = "Images not available: Document type is not supported for verification."

NO_DOCUMENTS: dict[Scenario, Body] = {
    Scenario.NO_DOCUMENTS: {"message": _NONE_FOUND},
    Scenario.NO_DOCUMENTS_NESTED: {"referenceId": _REFERENCE, "msg": {"status": 400, "msg": _NONE_FOUND_OLDER}},
    Scenario.NO_DOCUMENTS_PLAIN_MSG: {"referenceId": _REFERENCE, "msg": _NONE_FOUND_OLDER},
    Scenario.NO_DOCUMENTS_LONG: {
        "error": "Bad Request",
        "code": "400",
        "message": _NONE_FOUND,
        "details": "There are no documents for this evaluation.",
        "invalid_args": [],
    },
    Scenario.NO_DOCUMENTS_SHORT: {"error": _NONE_FOUND},
    Scenario.NO_DOCUMENTS_UNSUPPORTED: {"message": _UNSUPPORTED},
    Scenario.NO_DOCUMENTS_MILITARY: {"message": _NONE_FOUND},
    Scenario.NO_DOCUMENTS_MINOR: {"message": _NONE_FOUND},
    Scenario.NO_DOCV_STEP: {"message": _NONE_FOUND},
    Scenario.NOT_COMPLETE: {"message": _NONE_FOUND},
}
"""Status 400: there are no documents."""

REJECTED: Body = {
    "error": "Bad Request",
    "code": "400",
    "message": "The request cannot be accepted.",
    "details": "The workflow of this evaluation has no document step.",
    "invalid_args": [],
}
"""Status 400: something else is wrong."""

NO_UUID: Body = {
    "error": "Bad Request",
    "code": "400",
    "message": "Invalid request.",
    "details": "eval_id must be a UUID.",
    "invalid_args": ["eval_id"],
}
"""Status 400: the ID in the path is not valid."""

NO_ROUTE: Body = {"message": "no Route matched with those values"}
"""Status 404: a gateway does not know the path."""

RATE_LIMITED: Body = {"error": "rate_limit"}
"""Status 429: too many requests in a second."""

QUOTA_SPENT: Body = {"error": "quota_exceeded", "message": "The daily quota is exceeded."}
"""Status 429: too many requests in a day."""

BY_STATUS: dict[int, Body] = {
    401: {"message": "Invalid API key"},
    403: {"message": "Forbidden"},
    404: {"message": "Evaluation not found"},
    408: {"message": "Request timeout"},
    500: {"message": "Internal server error"},
    503: {"message": "Service unavailable"},
}
"""The usual body of a status."""

PAGE = b"<!doctype html><title>Sign in</title><h1>Sign in</h1><p>Your session has ended.</p>\n"
"""The page that a proxy or a login service answers with status 200."""

GATEWAY_PAGE = b"<html><head><title>Gateway</title></head><body><h1>Gateway error</h1></body></html>\n"
"""The page of a load balancer whose backend does not answer."""
