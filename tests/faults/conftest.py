"""What the fault tests share: their size, and the figures that they tell."""

from collections.abc import Callable

import pytest

from tests.faults.scale import LONG, SHORT, Scale

_LONGEST_SECONDS = 3_600


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the long forms their time."""
    if config.getoption("--faults") == "long":
        for item in items:
            if "faults" in item.path.parts:
                item.add_marker(pytest.mark.timeout(_LONGEST_SECONDS))


@pytest.fixture(scope="session")
def scale(pytestconfig: pytest.Config) -> Scale:
    """The sizes that were asked for."""
    return LONG if pytestconfig.getoption("--faults") == "long" else SHORT


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tell a line of figures; it is printed when all tests are over."""
    return lambda line: record_property("figures", line)
