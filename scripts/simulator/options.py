"""Options of the simulator: where it listens and how it behaves. Some can be changed while it runs."""

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import pydantic

from scripts.simulator.bundles import DEFAULT_IMAGE_BYTES

_FIXED = frozenset({"host", "port", "api_key", "image_bytes", "neighbour"})

Count = Annotated[int, pydantic.Field(ge=0)]
Duration = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
ErrorStatus = Annotated[int, pydantic.Field(ge=400, le=599)]


class RateHeaderStyle(enum.StrEnum):
    """The headers about the rate. Clients must understand all: other spellings than RiskOS's have been seen."""

    RISKOS = "riskos"
    """``X-Ratelimit-Limit-Window``, ``-Remaining-Window`` and, with a quota, ``-Day``, as RiskOS sends them."""
    NONE = "none"
    """No headers: neither what is left nor how long to wait."""
    STANDARD = "standard"
    """``RateLimit-Limit``, ``-Remaining``, ``-Reset`` and ``Retry-After``."""
    X = "x"
    """``X-RateLimit-Limit``, ``-Remaining``, ``-Reset`` and ``X-Retry-After``."""


@dataclass(frozen=True, kw_only=True)
class SimulatorOptions:
    """Options of the simulator; those below ``image_bytes``, but for ``neighbour``, can be changed while it runs.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        api_key: the key it accepts.
        image_bytes: approximate size of each JPEG.
        rate: requests it grants in any second; None grants all, 0 none, as with a production key that
            is not activated yet.
        quota: requests it grants in a day; None grants all.
        day_seconds: how long a day of the quota lasts, from its first request; short in rehearsals.
        header_style: the headers about the rate.
        neighbour: least and most requests per second of another client with the same key; None for no such client.
        latency_ms: milliseconds before it answers for an evaluation.
        jitter_ms: milliseconds by which the latency varies, in both directions.
        slow_seconds: how long the answer of a slow evaluation takes.
        refuse_with: error status of every answer, such as 401, 403 or 500; None answers by the scenario of
            each evaluation.
        mended: whether scenarios that always fail give their documents now, to rehearse a redrive.
    """

    host: str = "127.0.0.1"
    port: int = 0
    api_key: str = field(default="simulated-key", repr=False)
    image_bytes: int = DEFAULT_IMAGE_BYTES
    rate: Count | None = None
    quota: Count | None = None
    day_seconds: Duration = 86_400.0
    header_style: RateHeaderStyle = RateHeaderStyle.RISKOS
    neighbour: tuple[Count, Count] | None = None
    latency_ms: Duration = 0.0
    jitter_ms: Duration = 0.0
    slow_seconds: Duration = 3.0
    refuse_with: ErrorStatus | None = None
    mended: bool = False

    def changed(self, changes: Mapping[str, Any]) -> "SimulatorOptions":
        """Return these options with some changes.

        Raises:
            ValueError: an option is unknown or cannot be changed, or a value is impossible; the message says which.
        """
        changeable = {option.name for option in dataclasses.fields(self)} - _FIXED
        if unknown := changes.keys() - changeable:
            raise ValueError(f"cannot be changed: {', '.join(sorted(unknown))}")
        try:
            return _OPTIONS.validate_python(dataclasses.asdict(self) | dict(changes))
        except pydantic.ValidationError as error:
            wrong = "; ".join(f"{first['loc'][0]}: {first['msg']}" for first in error.errors())
            raise ValueError(wrong) from None


_OPTIONS = pydantic.TypeAdapter(SimulatorOptions)
