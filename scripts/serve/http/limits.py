"""Limits for clients: times, sizes and connections."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits for every client; an argument, so that tests need not wait.

    Attributes:
        head_seconds: longest time for the headers of a request, from its first byte, or from connecting.
        body_seconds: longest time for its body.
        answer_seconds: longest time for a client to read bytes of a response.
        idle_seconds: how long a connection may stay without a request.
        body_bytes: largest body.
        depth: maximum number of brackets that may be open at once in a JSON body.
        connections: maximum number of connections.
        connections_per_address: maximum number of connections from one address.
        redis_seconds: longest time for requests to Redis before the response is 503.
        wrong_secrets_per_second: wrong secrets from all callers that are answered with 401; others with 429.
        shutdown_seconds: longest time for requests under way when the process stops.
    """

    head_seconds: float = 10.0
    body_seconds: float = 10.0
    answer_seconds: float = 30.0
    idle_seconds: float = 75.0
    body_bytes: int = 1 << 20
    depth: int = 64
    connections: int = 1_000
    connections_per_address: int = 100
    redis_seconds: float = 4.5
    wrong_secrets_per_second: float = 10.0
    shutdown_seconds: float = 6.0
