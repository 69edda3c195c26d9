"""Describe rules, and what they decide about a document, without its name."""

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.retention.decision import Decision
from tasks.retention.schedule import CAPTURED, FOREVER, Action, Rule, Schedule

RULE_COLUMNS = ("rule", "matches", "keep for", "clock", "then", "keep")
"""Titles of the cells that ``describe_rule`` returns."""
_MATCHED = ("kind", "environment", "account", "run", "evidence")


@dataclass(frozen=True, slots=True)
class DocumentDecision:
    """What the schedule says about one document.

    Attributes:
        kind: kind of the document.
        sha256: hash of its bytes.
        decision: which rule decides, and when the document is due.
    """

    kind: str
    sha256: str
    decision: Decision

    def as_json(self) -> dict[str, object]:
        """Return the decision as a JSON object."""
        rule = self.decision.rule
        return {
            "kind": self.kind,
            "sha256": self.sha256,
            "rule": rule and rule.name,
            "clock": rule and rule.clock,
            "then": rule and rule.then,
            "keep": rule and rule.keep,
            "started": self.decision.started,
            "ends": self.decision.ends,
            "due": self.decision.due,
            "why": describe_decision(self.decision),
        }


def describe_rule(rule: Rule) -> tuple[str, ...]:
    """Return the cells of a rule in a table."""
    matched = _matched(rule)
    words = [f"{name} {' or '.join(values)}" for name, values in matched.items()]
    words += [f"tag {name}={value}" for name, value in rule.tag.items()]
    return (
        *(rule.name, "; ".join(words) or "every document"),
        *(str(rule.keep_for), rule.clock or "", "" if rule.keep_for == FOREVER else rule.then.value, rule.keep.value),
    )


def rule_as_json(rule: Rule) -> dict[str, object]:
    """Return a rule as a JSON object."""
    facts = {"name": rule.name, **_matched(rule), "tag": dict(rule.tag), "keep_for": str(rule.keep_for)}
    return {**facts, "clock": rule.clock, "then": rule.then, "keep": rule.keep}


def _matched(rule: Rule) -> dict[str, list[str]]:
    return {name: sorted(values) for name in _MATCHED if (values := getattr(rule, name)) is not None}


def find_notes(schedule: Schedule) -> Iterator[str]:
    """Yield a sentence for each thing that a reader of the rules may overlook."""
    for first, second in schedule.find_overlaps():
        yield (
            f"note: rules {first.name!r} and {second.name!r} may match the same document; then {first.name!r} decides, "
            "because it comes first"
        )
    for clock in sorted({rule.clock for rule in schedule.rule if rule.clock} & {CAPTURED, *schedule.events}):
        names = ", ".join(repr(rule.name) for rule in schedule.rule if rule.clock == clock)
        if clock == CAPTURED:
            yield f"note: documents of {names} are kept if the day of their evaluation is not known"
        else:
            yield f"note: documents of {names} are kept until the event {clock} is reported with `retention event`"
    if schedule.events:
        yield f"note: after an event was received, nothing is due for {schedule.grace}"
    if all(_matched(rule) or rule.tag for rule in schedule.rule):
        yield "note: a document that no rule matches is kept"


def describe_decision(decision: Decision) -> str:
    """Return in one sentence which rule decides about a document, and why."""
    rule = decision.rule
    if rule is None:
        return "no rule matches: kept"
    if decision.due is None:
        if rule.clock is None:
            return f"rule {rule.name}: kept forever"
        return f"rule {rule.name}: its clock has not started ({rule.clock}): kept"
    then = "to be reviewed" if rule.then is Action.REVIEW else "due"
    grace = "" if decision.due == decision.ends else ", because of the grace after its event was received"
    return (
        f"rule {rule.name}: clock {rule.clock} started {decision.started}, {rule.keep_for} end {decision.ends}, "
        f"{then} {decision.due}{grace}"
    )
