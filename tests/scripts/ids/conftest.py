"""Settings for reading lists."""

from pathlib import Path

import pytest

from worker.config.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a folder of this test's own."""
    return Settings(state_dir=tmp_path / "state")
