"""Settings for reading lists."""

from pathlib import Path

import pytest

from worker.config.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a folder for this test only."""
    return Settings(state_dir=tmp_path / "state")
