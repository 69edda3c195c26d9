"""Walk the evaluations of the archive in the order of their IDs, each with its manifest and its events.

Events are listed next to the evaluations, in the same order. S3 charges twelve times as much for a listing as for
reading an object, so a listing for each evaluation would be the largest part of the cost.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from scripts.verify.layout import is_canonical
from scripts.verify.objects_api import ObjectLister
from scripts.verify.ordered_gather import ordered_gather
from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.retention.event import EVENTS, EventRecord, read_events
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, read_manifest

_AT_ONCE = 64
Result = TypeVar("Result")
_Named = tuple[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class WalkedEvaluation:
    """An evaluation of the archive.

    Attributes:
        evaluation: the evaluation.
        manifest: its manifest; None if it cannot be read, or if an event cannot.
        events: the record that counts for each event.
    """

    evaluation: Evaluation
    manifest: Manifest | None
    events: Mapping[str, EventRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArchiveWalk:
    """The evaluations of an archive.

    Attributes:
        bucket: reads manifests and events.
        lister: lists their keys.
        environments: the environments to walk.
        with_events: whether any rule has an event as its clock.
    """

    bucket: Bucket
    lister: ObjectLister
    environments: Sequence[str]
    with_events: bool

    async def run(self, examine: Callable[[WalkedEvaluation], Awaitable[Result]]) -> AsyncIterator[Result]:
        """Yield the result of a function for each evaluation, in order; it runs for several at the same time.

        Raises:
            StorageError: the archive does not answer.
        """
        for environment in self.environments:
            work = partial(self._examine, environment, examine)
            found = ordered_gather(_AT_ONCE, work, self._find(environment))
            async with aclosing(found):  # type: ignore[type-var]  # it is a generator
                async for each in found:
                    if each is not None:
                        yield each

    async def _examine(
        self, environment: str, examine: Callable[[WalkedEvaluation], Awaitable[Result]], named: _Named
    ) -> Result | None:
        evaluation = Evaluation(named[0], environment)
        try:
            stored = await read_manifest(self.bucket, evaluation)
            if stored is None:
                return None
            events = await read_events(self.bucket, evaluation, named[1]) if named[1] else {}
        except IntegrityError:
            return await examine(WalkedEvaluation(evaluation, None))
        return await examine(WalkedEvaluation(evaluation, stored.manifest, events))

    async def _find(self, environment: str) -> AsyncIterator[_Named]:
        """Yield the ID of each evaluation, and the keys of its events."""
        async with (
            aclosing(self._list_events(environment)) as events,  # type: ignore[type-var]  # it is a generator
            aclosing(self._list_evaluations(environment)) as eval_ids,  # type: ignore[type-var]
        ):
            following: _Named | None = await anext(events, None)
            async for eval_id in eval_ids:
                while following and following[0] < eval_id:
                    following = await anext(events, None)
                yield eval_id, following[1] if following and following[0] == eval_id else ()

    async def _list_evaluations(self, environment: str) -> AsyncIterator[str]:
        async with aclosing(self.lister.list_folders(f"{environment}/")) as listing:  # type: ignore[type-var]
            async for some in listing:
                for name in some:
                    if is_canonical(name):
                        yield name

    async def _list_events(self, environment: str) -> AsyncIterator[_Named]:
        """Yield each evaluation with events, and the keys of these."""
        if not self.with_events:
            return
        prefix, eval_id, keys = f"{EVENTS}{environment}/", "", list[str]()
        async with aclosing(self.lister.walk(prefix)) as listing:  # type: ignore[type-var]
            async for some in listing:
                for listed in some:
                    found = listed.key.removeprefix(prefix).partition("/")[0]
                    if found != eval_id and keys:
                        yield eval_id, tuple(keys)
                        keys = []
                    eval_id = found
                    keys.append(listed.key)
        if keys:
            yield eval_id, tuple(keys)
