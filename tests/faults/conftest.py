"""Fixtures of the fault tests: their scale, and the figures that they print."""

from collections.abc import Callable

import pytest

from tests.faults.scale import LONG, SHORT, Scale

_LONGEST_SECONDS = 3_600


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the long forms a longer timeout."""
    if config.getoption("--faults") == "long":
        for item in items:
            if "faults" in item.path.parts:
                item.add_marker(pytest.mark.timeout(_LONGEST_SECONDS))


@pytest.fixture(scope="session")
def scale(pytestconfig: pytest.Config) -> Scale:
    """The scale that is set on the command line."""
    return LONG if pytestconfig.getoption("--faults") == "long" else SHORT


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Add a line of figures; it is printed after all tests."""
    return lambda line: record_property("figures", line)
