"""Distinguish an evaluation that the API key may not read (403) from an account whose key may read nothing.

RiskOS documents 403 as "does not have permission to access this resource", and its OpenAPI file lists 403 for the
documents of an evaluation, not for the evaluation itself. So it is usually about one evaluation, such as one of another
sub-account. It is about the account only if no evaluation gets another answer.
"""

import enum
import importlib.resources
from dataclasses import dataclass

from redis.asyncio import Redis

from tasks.resilience.holds import UNUSED_KEY


class Verdict(enum.StrEnum):
    """What a 403 means, compared with the account's other answers."""

    ACCOUNT = "account"
    """Every recent answer was 403."""
    FIRST = "first"
    """It is the evaluation's first 403."""
    EVALUATION = "evaluation"
    """Another evaluation got an answer since the first 403 of this one."""
    NEEDS_CONTROL = "ask"
    """No other got an answer since; a request for the one that got an answer last decides."""
    UNKNOWN = "unknown"
    """No other evaluation of the account ever got an answer."""


@dataclass(frozen=True, slots=True)
class ForbiddenAnswer:
    """A 403 and what it means.

    Attributes:
        verdict: what it means.
        control: the evaluation that last got an answer other than 403, or an empty text.
        examples: up to three evaluations that got a 403 recently.
    """

    verdict: Verdict
    control: str
    examples: tuple[str, ...]

    @property
    def note(self) -> str:
        """The note of a hold of the account."""
        return f"RiskOS answered 403 to every recent request, such as for {', '.join(self.examples)}"


class PermissionMonitor:
    """Compares the 403s of an account with its other answers, for all processes together.

    Args:
        redis: the client, with ``decode_responses``.
        account: name of the account.
    """

    def __init__(self, redis: "Redis", account: str) -> None:
        self._redis = redis
        self._script = redis.register_script(
            importlib.resources.files("tasks.resilience").joinpath("permission.lua").read_text("utf-8")
        )
        self._keys = [f"docv:answers:{account}", f"docv:answered:{account}", UNUSED_KEY]
        self._answers = 0
        self._answered: dict[str, None] = {}

    def record_answered(self, eval_id: str) -> None:
        """Count an answer other than 403; ``flush`` and ``record_forbidden`` publish it to the other processes."""
        self._answers += 1
        self._answered.pop(eval_id, None)
        self._answered[eval_id] = None
        if len(self._answered) > 2:  # noqa: PLR2004  # the script keeps two
            del self._answered[next(iter(self._answered))]

    async def record_forbidden(self, eval_id: str, since: float | None) -> ForbiddenAnswer:
        """Record that RiskOS answered 403; return what that means.

        Args:
            eval_id: the evaluation.
            since: when it first got a 403, in seconds of Redis's clock; None if it never did.
        """
        verdict, control, *examples = await self._call(eval_id, round((since or 0) * 1000))
        return ForbiddenAnswer(Verdict(verdict), control, tuple(examples))

    async def find_control(self, eval_id: str) -> str | None:
        """Return the evaluation other than this one that last got an answer other than 403, or None."""
        await self.flush()
        found = map(str, filter(None, await self._redis.hmget(self._keys[1], ["last", "before"])))
        return next((each for each in found if each != eval_id), None)

    async def flush(self) -> None:
        """Publish the answers other than 403 to the other processes."""
        if self._answers:
            await self._call()

    async def _call(self, *forbidden: str | int) -> list[str]:
        answers, (latest, before, *_) = self._answers, (*reversed(self._answered), "", "")
        self._answers = 0
        self._answered.clear()
        found: list[str] = await self._script(keys=self._keys, args=[answers, latest, before, *forbidden])
        return found
