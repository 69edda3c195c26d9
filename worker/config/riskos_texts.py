"""Define the sentences of error bodies that decide what an answer with status 400 or 404 is.

All of them are compared without case, white space and a dot at the end.
"""

NO_DOCUMENTS_TEXTS = (
    "No Documents Found",
    "Images not available: Document type is not supported for verification.",
)
"""RiskOS's own for an evaluation without documents (documented, and seen in public integrations)."""

GATEWAY_TEXTS = (
    # A bare reason phrase: API Gateway (HTTP APIs, default 4xx), Kong, Tyk, gRPC gateways, most frameworks. RiskOS may
    # answer so as well; an evaluation that is tried again for nothing is better than one that is wrongly given up.
    "Not Found",
    "Bad Request",
    "404 Not Found",
    "400 Bad Request",
    # Amazon API Gateway (REST APIs).
    "Missing Authentication Token",
    "Invalid request body",
    # Kong, with those of nginx in it.
    "no Route matched with those values",
    "no API found with those values",
    "no Route and no API found with those values",
    "The plain HTTP request was sent to HTTPS port",
    "The SSL certificate error",
    "No required SSL certificate was sent",
    "Request header or cookie too large",
    # Google API Gateway and Cloud Endpoints.
    "The current request is not defined by this API.",
    "Method does not exist.",
    # Gravitee, Azure API Management, APISIX.
    "No context-path matches the request URI.",
    "Unable to match incoming request to an operation.",
    "404 Route Not Found",
    # Traefik, Go's own router, Micronaut, ingress-nginx.
    "404 page not found",
    "Page Not Found",
    "default backend - 404",
)
"""Those that gateways in front of RiskOS answer with in a shape of RiskOS's, such as ``{"message": …}``."""
