"""Make notifications of fixed words, counts and the names of runs, never of evaluations or personal data."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from tasks.ledger.counters import RunCounters
from tasks.storage.manifest import utc_now

_MOST_CAUSES = 10
_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification.

    Attributes:
        id: the same if the notification is sent again, so that a receiver can drop repetitions.
        event: ``run_finished``, ``dead_letters`` or ``verify_differences``.
        text: a sentence for people; Slack and others show it.
        facts: the same for programs.
    """

    id: str
    event: str
    text: str
    facts: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> bytes:
        """Return the body of the request."""
        return orjson.dumps({"id": self.id, "event": self.event, "at": utc_now(), "text": self.text, **self.facts})


def run_finished(run: str, counters: RunCounters) -> Notification:
    """Return the notification that no evaluation of a run is pending."""
    outcomes = {outcome.value: count for outcome, count in counters.outcomes.items() if count}
    attention = (
        f"{counters.errors:,} need{'s' if counters.errors == 1 else ''} attention"
        if counters.errors
        else "none needs attention"
    )
    counts = ", ".join(f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in outcomes.items())
    return Notification(
        f"run:{_word(run)}:{counters_digest(counters)}",
        "run_finished",
        f"docv-archive: run {_word(run)} finished. {_plural(counters.total, 'evaluation')}: {counts}; {attention}.",
        {
            "run": _word(run),
            "account": _word(counters.account),
            "total": counters.total,
            "outcomes": outcomes,
            "errors": counters.errors,
        },
    )


def counters_digest(counters: RunCounters) -> str:
    """Return a digest that distinguishes one end of a run from another one, such as the end after a redrive."""
    outcomes = sorted((outcome.value, count) for outcome, count in counters.outcomes.items() if count)
    return hashlib.sha256(orjson.dumps([counters.total, outcomes])).hexdigest()[:16]


def dead_letters_appeared(causes: Mapping[str, int], total: int, until: int) -> Notification:
    """Return the notification that there are new dead letters.

    Args:
        causes: how many new ones have each cause.
        total: how many there are.
        until: when they were counted, in milliseconds since the epoch.
    """
    count = sum(causes.values())
    known = _most_frequent(causes)
    reasons = ", ".join(f"{number:,} {cause}" for cause, number in known.items())
    return Notification(
        f"dead_letters:{until}",
        "dead_letters",
        f"docv-archive: {_plural(count, 'new dead letter')} ({reasons}); {total:,} in all.",
        {"count": count, "causes": known, "total": total},
    )


def differences_found(problems: Mapping[str, int], evaluations: int) -> Notification:
    """Return the notification that `verify` found differences between the archive and its manifests.

    Args:
        problems: how many differences there are of each kind.
        evaluations: how many evaluations were verified.
    """
    count, at = sum(problems.values()), utc_now()
    known = _most_frequent(problems)
    kinds = ", ".join(f"{number:,} {problem}" for problem, number in known.items())
    return Notification(
        f"verify:{at}",
        "verify_differences",
        f"docv-archive: verify found {_plural(count, 'difference')} ({kinds}) in {_plural(evaluations, 'evaluation')}.",
        {"count": count, "problems": known, "evaluations": evaluations},
    )


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _most_frequent(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the most frequent words; the rest is added up as ``other``."""
    found = dict[str, int]()
    for word, count in sorted(counts.items(), key=lambda item: -item[1]):
        name = word if len(found) < _MOST_CAUSES and _WORD.fullmatch(word) else "other"
        found[name] = found.get(name, 0) + count
    return found


def _word(text: str) -> str:
    """Return a name if it is valid; an invalid one comes from a damaged Redis and may hold anything."""
    return text if _WORD.fullmatch(text) else "unnamed"
