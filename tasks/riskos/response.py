"""RiskOS's answer to the question for an evaluation's documents: a bundle, or its word that there is none."""

from dataclasses import dataclass

from tasks.memory.buffer_pool import Buffer
from tasks.model.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Bundle:
    """The ZIP as downloaded.

    Attributes:
        filename: name that RiskOS gave it, or None.
        data: its bytes, in memory or mapped.
        sha256: their hash.
        size: how many they are.
        request_id: RiskOS's ID of the request, or None.
    """

    filename: str | None
    data: Buffer
    sha256: str
    size: int
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class NoBundle:
    """RiskOS's word that there is no bundle, and never will be by asking again.

    Attributes:
        outcome: ``no_documents``, ``not_found`` or ``rejected``.
        status: the HTTP status.
        message: what RiskOS said, cut.
        request_id: RiskOS's ID of the request, or None.
    """

    outcome: Outcome
    status: int
    message: str | None
    request_id: str | None = None


FetchResult = Bundle | NoBundle
