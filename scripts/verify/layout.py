"""Group the keys of a listing into places: an evaluation, its quarantine, its events, a run, or a single record."""

import enum
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tasks.errors import BadEvalId
from tasks.model.evaluation import ENVIRONMENTS, parse_eval_id
from tasks.retention.event import EVENTS
from tasks.storage.bucket import ListedObject


class ArchiveArea(enum.Enum):
    """The purpose of a part of the archive."""

    EVALUATION = enum.auto()
    QUARANTINE = enum.auto()
    RUN = enum.auto()
    EVENT = enum.auto()
    LEGAL_HOLD = enum.auto()
    CERTIFICATE = enum.auto()
    RECEIPT = enum.auto()
    NONE = enum.auto()
    """Not written by docv-archive."""


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """A part of the archive.

    Attributes:
        area: its purpose.
        prefix: prefix of all its keys.
        environment: environment of the evaluation or run; empty if it is neither.
        name: the evaluation's ID, or the run's name.
    """

    area: ArchiveArea
    prefix: str
    environment: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ObjectGroup:
    """The objects of a place; None if they were not listed yet."""

    place: ArchivePlace
    objects: tuple[ListedObject, ...] | None


_RECORDS = (
    ("holds/", ArchiveArea.LEGAL_HOLD),
    ("receipts/disposals/", ArchiveArea.CERTIFICATE),
    ("receipts/", ArchiveArea.RECEIPT),
)


def evaluation_place(environment: str, eval_id: str) -> ArchivePlace:
    """Return the place of an evaluation."""
    return ArchivePlace(ArchiveArea.EVALUATION, f"{environment}/{eval_id}/", environment, eval_id)


def quarantine_place(environment: str, eval_id: str) -> ArchivePlace:
    """Return the place of an evaluation's quarantine."""
    return ArchivePlace(ArchiveArea.QUARANTINE, f"quarantine/{environment}/{eval_id}/", environment, eval_id)


def event_place(environment: str, eval_id: str) -> ArchivePlace:
    """Return the place of the events of an evaluation."""
    return ArchivePlace(ArchiveArea.EVENT, f"{EVENTS}{environment}/{eval_id}/", environment, eval_id)


def place_of(key: str) -> ArchivePlace:
    """Return the place that a key belongs to; each unknown key is a place of its own."""
    match key.split("/"):
        case [environment, eval_id, _, *_] if environment in ENVIRONMENTS and is_canonical(eval_id):
            return evaluation_place(environment, eval_id)
        case ["quarantine", environment, eval_id, _, *_] if environment in ENVIRONMENTS and is_canonical(eval_id):
            return quarantine_place(environment, eval_id)
        case ["runs", environment, run, _, *_] if environment in ENVIRONMENTS:
            return ArchivePlace(ArchiveArea.RUN, f"runs/{environment}/{run}/", environment, run)
        case ["events", environment, eval_id, _] if environment in ENVIRONMENTS and is_canonical(eval_id):
            return event_place(environment, eval_id)
        case ["holds" | "receipts", _, *_]:
            return ArchivePlace(next(area for prefix, area in _RECORDS if key.startswith(prefix)), key)
    return ArchivePlace(ArchiveArea.NONE, key)


async def group_objects(listing: AsyncIterator[list[ListedObject]]) -> AsyncIterator[ObjectGroup]:
    """Yield the places of a listing in the order of keys, each with its objects."""
    place, objects = ArchivePlace(ArchiveArea.NONE, ""), list[ListedObject]()
    async for some in listing:
        for found, these in itertools.groupby(some, lambda stored: place_of(stored.key)):
            if objects and found != place:
                yield ObjectGroup(place, tuple(objects))
                objects = []
            place = found
            objects += these
    if objects:
        yield ObjectGroup(place, tuple(objects))


def is_canonical(eval_id: str) -> bool:
    """Return whether a text is an evaluation ID in the form that keys have."""
    try:
        return parse_eval_id(eval_id) == eval_id
    except BadEvalId:
        return False
