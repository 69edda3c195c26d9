"""Find out where each setting comes from: the environment, ``.env``, a secret file, or its default."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values

from worker.config.setting_files import secret_folders

DEFAULT = "default"


def find_source(name: str, dotenv: Path) -> str:
    """Return where a setting comes from, searching in the same order as pydantic-settings.

    An empty variable counts as not set.

    Args:
        name: the environment variable, in upper case.
        dotenv: the file with variables, which need not exist.
    """
    if _has_value(name, os.environ):
        return "environment"
    if _has_value(name, dotenv_values(dotenv)):
        return dotenv.name
    return next((str(file) for file in _secret_files() if file.name.upper() == name), DEFAULT)


def _has_value(name: str, variables: Mapping[str, str | None]) -> bool:
    return any(key.upper() == name and value for key, value in variables.items())


def _secret_files() -> Iterator[Path]:
    for folder in reversed(secret_folders()):
        yield from sorted(folder.iterdir())
