"""A version of the API that is not pinned is a hint, not a failure."""

from scripts.doctor.configuration import api_version
from scripts.doctor.finding import State
from worker.config.settings import Settings


def test_a_version_that_is_not_pinned_is_a_hint() -> None:
    finding = api_version(Settings())
    assert (finding.state, "DOCV_API_VERSION is not set" in finding.message) == (State.WARNING, True)
    assert "2025-01-01.orion" in finding.fix


def test_a_pinned_version_is_told() -> None:
    finding = api_version(Settings(api_version="2025-01-01.orion"))
    assert (finding.state, finding.message) == (State.FINE, "2025-01-01.orion is sent with each request")
