"""How much of us one client may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What everybody keeps to who talks to us; handed in, so that a test need not wait.

    Attributes:
        head_seconds: longest time for the headers of a request, from its first byte, or from connecting.
        body_seconds: longest time for its body.
        idle_seconds: how long a connection may stay without a request.
        body_bytes: largest body.
        depth: most brackets that may be open at once in a JSON body.
        connections: most connections at once.
        connections_per_address: most of them from one address.
        redis_seconds: longest time for what Redis is asked before the answer is 503.
        shutdown_seconds: how long requests under way may take when the process is told to end.
    """

    head_seconds: float = 10.0
    body_seconds: float = 10.0
    idle_seconds: float = 75.0
    body_bytes: int = 1 << 20
    depth: int = 64
    connections: int = 1_000
    connections_per_address: int = 100
    redis_seconds: float = 4.5
    shutdown_seconds: float = 6.0
