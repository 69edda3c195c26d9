"""Define the error texts that decide what a response with status 400 or 404 means.

Case, white space and a final dot are ignored when they are compared.
"""

NO_DOCUMENTS_TEXTS = (
    "No Documents Found",
    "Images not available: Document type is not supported for verification.",
)
"""RiskOS's texts for an evaluation without documents (documented, and seen in public integrations)."""

GATEWAY_TEXTS = (
    # A bare reason phrase: API Gateway (HTTP APIs, default 4xx), Kong, Tyk, gRPC gateways, most frameworks. RiskOS may
    # send it, too, but a useless retry is better than giving up an evaluation by mistake.
    "Not Found",
    "Bad Request",
    "404 Not Found",
    "400 Bad Request",
    # Amazon API Gateway (REST APIs).
    "Missing Authentication Token",
    "Invalid request body",
    # Kong, and nginx inside it.
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
"""Texts of gateways in front of RiskOS, whose bodies have the shape of RiskOS's, such as ``{"message": …}``."""
