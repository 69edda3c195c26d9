"""Fixtures that tests of several commands share."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def undeletable(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """IDs of evaluations whose images cannot be removed."""
    eval_ids, real = set[str](), Path.unlink

    def unlink(path: Path, **options: bool) -> None:
        if path.suffix == ".jpg" and eval_ids.intersection(path.parts):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        yield eval_ids
