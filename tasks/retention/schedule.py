"""The retention schedule: rules that say how long documents are kept, from when, and what happens then.

The file is TOML, so that it can be reviewed like code: ``docs/retention.md`` describes it. The first rule that matches
a document decides; a document that no rule matches is kept.
"""

import enum
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from tasks.bundle.documents import Kind
from tasks.model.evaluation import ENVIRONMENTS
from tasks.retention.period import Period
from tasks.storage.manifest_records import ERASURE
from worker.config.settings import Settings, SettingsError

MAX_BYTES = 256 << 10
"""Maximum size of the file."""
MAX_RULES = 200
"""Maximum number of rules."""
ARCHIVED, CAPTURED = "archived", "captured"
"""Clocks that need no event: when the document was archived, and when RiskOS captured it."""
FOREVER = "forever"
"""The period of a rule that keeps documents without an end."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,47}", re.ASCII)
_EVENT = re.compile(r"[a-z][a-z0-9_]{0,47}", re.ASCII)
_SHARE = re.compile(r"(?:100|[1-9]?[0-9](?:\.[0-9])?)%", re.ASCII)
_LEAST_SHARED = 100
_PLACE = re.compile(r"at line \d+, column \d+|at end of document")


def _as_words(value: object) -> object:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise ValueError("expected a text or a list of texts")
    return frozenset(value)


Words = Annotated[frozenset[str], BeforeValidator(_as_words)]
"""A text, or a list of texts of which one has to match."""


class Keep(enum.StrEnum):
    """Whether a rule is a duty to keep, which prevents an erasure."""

    MUST = "must"
    MAY = "may"


class Action(enum.StrEnum):
    """What happens when the period of a rule has ended."""

    DISPOSE = "dispose"
    REVIEW = "review"
    """A person decides; nothing is disposed of."""


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """The facts about a document that rules may match.

    Attributes:
        kind: its kind.
        environment: environment of its evaluation.
        account: account of its evaluation.
        run: run that archived it, or None.
        evidence: evidence of its evaluation.
        tags: its tags.
    """

    kind: str
    environment: str
    account: str
    run: str | None = None
    evidence: Collection[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


class Rule(BaseModel):
    """One rule of a schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str
    kind: Words | None = None
    environment: Words | None = None
    account: Words | None = None
    run: Words | None = None
    evidence: Words | None = None
    tag: Mapping[str, str] = Field(default_factory=dict)
    keep_for: Period | Literal["forever"]
    clock: str | None = None
    then: Action = Action.DISPOSE
    keep: Keep = Keep.MAY

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("expected up to 48 lower-case letters, digits and hyphens")
        if value == ERASURE:
            raise ValueError("manifests use this name for documents that were erased: choose another one")
        return value

    @field_validator("kind")
    @classmethod
    def _check_kinds(cls, value: Collection[str] | None) -> Collection[str] | None:
        return _check_known("kind", value, [kind.value for kind in Kind])

    @field_validator("environment")
    @classmethod
    def _check_environments(cls, value: Collection[str] | None) -> Collection[str] | None:
        return _check_known("environment", value, ENVIRONMENTS)

    @field_validator("keep_for", mode="before")
    @classmethod
    def _parse_period(cls, value: object) -> Period | str:
        return FOREVER if value == FOREVER else Period.parse(value)

    @field_validator("clock")
    @classmethod
    def _check_clock(cls, value: str | None) -> str | None:
        if value is not None and not _EVENT.fullmatch(value):
            raise ValueError("expected archived, captured or the name of an event, such as relationship_ended")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> "Rule":
        if self.keep_for == FOREVER and self.clock is not None:
            raise ValueError("a rule that keeps forever needs no clock")
        if self.keep_for != FOREVER and self.clock is None:
            raise ValueError("clock is missing: archived, captured or the name of an event")
        return self

    def matches(self, facts: DocumentFacts) -> bool:
        """Return whether the rule applies to a document."""
        return (
            _is_in(self.kind, facts.kind)
            and _is_in(self.environment, facts.environment)
            and _is_in(self.account, facts.account)
            and _is_in(self.run, facts.run)
            and (self.evidence is None or not self.evidence.isdisjoint(facts.evidence))
            and self.tag.items() <= facts.tags.items()
        )

    def covers(self, other: "Rule") -> bool:
        """Return whether this rule matches every document that another rule matches."""
        wide = all(
            (mine := getattr(self, name)) is None or ((theirs := getattr(other, name)) is not None and theirs <= mine)
            for name in ("kind", "environment", "account", "run", "evidence")
        )
        return wide and self.tag.items() <= other.tag.items()

    def overlaps(self, other: "Rule") -> bool:
        """Return whether there may be documents that both rules match."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in ("kind", "environment", "account", "run")]
        apart = any(mine is not None and theirs is not None and mine.isdisjoint(theirs) for mine, theirs in pairs)
        return not apart and all(other.tag.get(key, value) == value for key, value in self.tag.items())


def _is_in(allowed: Collection[str] | None, value: str | None) -> bool:
    return allowed is None or value in allowed


def _check_known(what: str, values: Collection[str] | None, known: Collection[str]) -> Collection[str] | None:
    if unknown := sorted(set(values or ()) - set(known)):
        raise ValueError(f"{unknown[0]!r} is not a valid {what}: expected {', '.join(known)}")
    return values


class Schedule(BaseModel):
    """A retention schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    grace: Period = Period(30, "d")
    max_per_run: int | str = "1%"
    rule: tuple[Rule, ...]

    @field_validator("grace", mode="before")
    @classmethod
    def _parse_grace(cls, value: object) -> Period:
        return value if isinstance(value, Period) else Period.parse(value)

    @field_validator("max_per_run")
    @classmethod
    def _check_limit(cls, value: int | str) -> int | str:
        is_valid = value > 0 if isinstance(value, int) else bool(_SHARE.fullmatch(value))
        if not is_valid:
            raise ValueError("expected a number of evaluations, or a share such as 1%")
        return value

    @model_validator(mode="after")
    def _check_rules(self) -> "Schedule":
        if not 1 <= len(self.rule) <= MAX_RULES:
            raise ValueError(f"expected 1 to {MAX_RULES} rules, a table [[rule]] each; there are {len(self.rule)}")
        for number, rule in enumerate(self.rule):
            for earlier in self.rule[:number]:
                if earlier.name == rule.name:
                    raise ValueError(f"two rules have the name {rule.name!r}")
                if earlier.covers(rule):
                    raise ValueError(
                        f"rule {rule.name!r} can never decide: {earlier.name!r} before it matches all its documents"
                    )
        return self

    @property
    def events(self) -> frozenset[str]:
        """The names of the events that start a clock."""
        return frozenset(rule.clock for rule in self.rule if rule.clock) - {ARCHIVED, CAPTURED}

    def find_rule(self, facts: DocumentFacts) -> Rule | None:
        """Return the rule that decides about a document, or None if none matches."""
        return next((rule for rule in self.rule if rule.matches(facts)), None)

    def find_overlaps(self) -> list[tuple[Rule, Rule]]:
        """Return the pairs of rules that may match the same document and decide differently about it."""
        decisions = {rule.name: tuple(getattr(rule, name) for name in _DECISION_FIELDS) for rule in self.rule}
        return [
            (first, second)
            for number, second in enumerate(self.rule)
            for first in self.rule[:number]
            if decisions[first.name] != decisions[second.name] and first.overlaps(second) and not second.covers(first)
        ]

    def max_evaluations(self, total: int) -> int:
        """Return how many evaluations an unattended run may dispose of; a share allows at least 100.

        Args:
            total: number of evaluations in the archive.
        """
        if isinstance(self.max_per_run, int):
            return self.max_per_run
        return max(_LEAST_SHARED, int(total * float(self.max_per_run.rstrip("%")) / 100))


_DECISION_FIELDS = ("keep_for", "clock", "then", "keep")


def load_schedule(settings: Settings) -> Schedule | None:
    """Return the schedule that ``DOCV_RETENTION`` names, or None without one.

    Raises:
        SettingsError: the file cannot be read or is not a valid schedule; one sentence for each problem.
    """
    return None if settings.retention is None else read_schedule(settings.retention)


def read_schedule(file: Path) -> Schedule:
    """Return the schedule in a file; raise as ``load_schedule``."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError((f"DOCV_RETENTION: {file} cannot be read: {error.strerror}",)) from None
    if len(data) > MAX_BYTES:
        raise SettingsError((f"DOCV_RETENTION: {file} is larger than {MAX_BYTES >> 10} KiB",))
    try:
        tables = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        place = _PLACE.search(str(error))
        raise SettingsError((f"DOCV_RETENTION: {file} is not TOML{f' ({place[0]})' if place else ''}",)) from None
    try:
        return Schedule.model_validate(tables)
    except ValidationError as error:
        problems = [f"DOCV_RETENTION: {file}: {_sentence(each, tables)}" for each in error.errors()]
        raise SettingsError(tuple(dict.fromkeys(problems))) from None


def _sentence(error: Any, tables: Mapping[str, Any]) -> str:
    """Return what is wrong, and in which rule."""
    place = list(error["loc"])
    where = ""
    if place[:1] == ["rule"] and len(place) > 1:
        rule = tables["rule"][place[1]]
        name = rule.get("name") if isinstance(rule, dict) else None
        where = f"rule {name!r}: " if isinstance(name, str) else f"rule {place[1] + 1}: "
        place = place[2:]
    what = {"missing": "is missing", "extra_forbidden": "is not a key of a schedule"}.get(error["type"])
    message = what or error["msg"].removeprefix("Value error, ")
    keys = ".".join(str(each) for each in place if isinstance(each, str) and each not in _BRANCHES)
    if not keys:
        return f"{where}{message}"
    return f"{where}{keys} {message}" if what else f"{where}{keys}: {message}"


_BRANCHES = frozenset(each.name for each in fields(Period)) | {
    "int",
    "str",
    "literal['forever']",
    "is-instance[Period]",
}
