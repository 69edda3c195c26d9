"""The findings of `doctor` about the API version, notifications and the retention schedule."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from scripts.doctor.configuration import check_api_version, examine_notifications, examine_schedule
from scripts.doctor.finding import State
from worker.config.settings import Settings


def test_the_api_version_is_a_warning_when_not_pinned() -> None:
    finding = check_api_version(Settings())
    assert (finding.state, "DOCV_API_VERSION is not set" in finding.message) == (State.WARNING, True)
    assert "2025-01-01.orion" in finding.fix


def test_the_api_version_is_shown_when_pinned() -> None:
    finding = check_api_version(Settings(api_version="2025-01-01.orion"))
    assert (finding.state, finding.message) == (State.FINE, "2025-01-01.orion is sent with each request")


@pytest.mark.parametrize(
    ("url", "secret", "state", "message"),
    [
        ("https://hooks.slack.com/services/T0/B0/hidden", None, State.FINE, "to hooks.slack.com"),
        ("https://ops.example/hidden", "a-key-to-sign-with", State.FINE, "to ops.example, signed"),
        ("https://ops.example/hidden", None, State.WARNING, "to ops.example, not signed"),
        (None, "a-key-to-sign-with", State.WARNING, "DOCV_NOTIFY_SECRET is set, but DOCV_NOTIFY_URL is not"),
    ],
)
def test_notifications_show_only_their_host_and_are_a_warning_when_unsigned(
    url: str | None, secret: str | None, state: State, message: str
) -> None:
    known = {name: SecretStr(text) for name, text in (("notify_url", url), ("notify_secret", secret)) if text}
    [finding] = examine_notifications(Settings(**known))  # type: ignore[arg-type]  # mypy sees a mapping of secrets
    assert (finding.state, finding.message) == (state, message)
    assert "hidden" not in finding.message + finding.fix


def test_notifications_give_no_finding_when_not_configured() -> None:
    assert not list(examine_notifications(Settings()))


def test_each_problem_of_a_schedule_is_a_finding(tmp_path: Path) -> None:
    file = tmp_path / "retention.toml"
    file.write_text('grace = "soon"\n[[rule]]\nname = "a"\nkeep_for = "5y"\n')
    findings = list(examine_schedule(Settings(retention=file)))
    assert {each.state for each in findings} == {State.WRONG}
    assert ["grace" in each.message or "clock is missing" in each.message for each in findings] == [True, True]


def test_a_schedule_is_shown_with_its_number_of_rules(tmp_path: Path) -> None:
    assert not list(examine_schedule(Settings()))
    file = tmp_path / "retention.toml"
    file.write_text('[[rule]]\nname = "a"\nkeep_for = "5y"\nclock = "archived"\n')
    (finding,) = examine_schedule(Settings(retention=file))
    assert (finding.state, finding.message) == (State.FINE, f"1 rule in {file}")
