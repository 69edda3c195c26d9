"""The systemd units agree with the Compose file and the settings, and pass systemd's own check."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.console.exit_codes import USAGE
from tests.command_line import parse
from tests.test_deploy import COMPOSE, KNOWN, SETTING
from worker.config.settings import Settings

FOLDER = Path(__file__).parents[1] / "deploy" / "systemd"
PROGRAM = "/opt/docv-archive/bin/docv-archive"
UNITS = {path.stem.removeprefix("docv-archive-").rstrip("@"): path for path in sorted(FOLDER.glob("*.service"))}
TIMES = {"audit": "*-*-* 04:17", "erase": "*-*-* *:37", "retention": "*-*-* 03:17", "verify": "*-*-* 02:17"}
NIGHTLY = [*TIMES]
SERVICES = [name for name in UNITS if name not in NIGHTLY]
WORKERS = [name for name in SERVICES if name != "serve"]
RIGHTS = {
    "serve": "aws_credentials_serve",
    "verify": "aws_credentials_auditor",
    "erase": "aws_credentials_eraser",
    "retention": "aws_credentials_eraser",
}

every_unit = pytest.mark.parametrize("name", UNITS)
every_service = pytest.mark.parametrize("name", SERVICES)
every_check = pytest.mark.parametrize("name", NIGHTLY)


def lines(name: str, setting: str) -> list[str]:
    return re.findall(rf"(?m)^{setting}=(.*)$", UNITS[name].read_text("utf-8"))


def test_serve_and_every_queue_have_a_unit() -> None:
    assert set(UNITS) == {"live", "backfill", "serve", *NIGHTLY}


@every_service
def test_a_unit_runs_the_command_of_compose(name: str) -> None:
    (command,) = lines(name, "ExecStart")
    program, *arguments = command.split()
    assert program == PROGRAM
    parse(arguments)
    # serve listens on loopback only: a proxy with TLS is in front of it.
    assert arguments == [each for each in COMPOSE["services"][name]["command"] if not each.startswith("--host")]


@every_unit
@pytest.mark.needs("systemd-analyze")
def test_systemd_accepts_each_unit(name: str, tmp_path: Path) -> None:
    unit = tmp_path / UNITS[name].name.replace("@", "@1")
    # systemd checks that the program exists.
    unit.write_text(UNITS[name].read_text("utf-8").replace(PROGRAM, sys.executable), "utf-8")
    shutil.copy(FOLDER / "docv-archive.target", tmp_path)
    timer = UNITS[name].with_suffix(".timer")
    timers = [shutil.copy(timer, tmp_path)] if timer.exists() else []
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit, tmp_path / "docv-archive.target", *timers],  # noqa: S607  # found in the PATH
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@every_check
def test_a_nightly_check_is_started_by_its_timer_and_runs_once(name: str) -> None:
    (command,) = lines(name, "ExecStart")
    program, *arguments = command.replace("%%", "%").split()
    assert program == PROGRAM
    parse(arguments)
    # With Compose, a list is read from standard input; here it is a file.
    assert [each for each in arguments if "/" not in each] == [
        each for each in COMPOSE["services"][name]["command"] if each != "-"
    ]
    assert (lines(name, "Type"), lines(name, "Restart")) == (["oneshot"], [])
    timer = UNITS[name].with_suffix(".timer").read_text("utf-8")
    assert re.findall(r"(?m)^(OnCalendar|Persistent|WantedBy)=(.*)$", timer) == [
        ("OnCalendar", TIMES[name]),
        ("Persistent", "true"),
        ("WantedBy", "timers.target"),
    ]


@every_service
def test_a_unit_is_restarted_unless_a_setting_is_invalid(name: str) -> None:
    assert lines(name, "Restart") == ["always"]
    assert lines(name, "RestartPreventExitStatus") == [str(USAGE)]
    assert lines(name, "StartLimitIntervalSec") == ["0"]


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_has_time_to_drain_when_it_is_stopped(name: str) -> None:
    (seconds,) = lines(name, "TimeoutStopSec")
    assert float(seconds) >= Settings.model_fields["drain_seconds"].default + 5


@every_unit
def test_a_unit_has_the_secrets_of_compose_and_redis_and_no_other(name: str) -> None:
    bound = [each.lstrip("-").split(":") for each in lines(name, "BindReadOnlyPaths")]
    files = {Path(inside).name for _, inside in bound}
    assert all(Path(inside).parent == Path("/run/secrets") for _, inside in bound)
    assert all(outside == f"/etc/docv-archive/secrets/{Path(inside).name}" for outside, inside in bound)
    rights = RIGHTS.get(name, "aws_credentials")
    assert files == {*COMPOSE["services"][name].get("secrets", ()), "docv_redis_url", rights}
    assert f"AWS_SHARED_CREDENTIALS_FILE=/run/secrets/{rights}" in lines(name, "Environment")
    assert {file.upper() for file in files - {rights}} <= KNOWN
    assert lines(name, "TemporaryFileSystem") == ["/run/secrets:ro"]


@every_unit
def test_a_unit_has_the_schedule_of_the_common_settings(name: str) -> None:
    assert lines(name, "EnvironmentFile") == ["/etc/docv-archive/settings.env"]
    assert not any("DOCV_RETENTION" in each for each in lines(name, "Environment"))
    assert lines(name, "InaccessiblePaths") == []


@every_unit
def test_a_unit_writes_to_its_state_directory_only(name: str) -> None:
    (state,) = lines(name, "StateDirectory")
    assert f"DOCV_STATE_DIR=%S/{state}" in lines(name, "Environment")
    assert lines(name, "WorkingDirectory") == [f"%S/{state}"]
    assert lines(name, "ProtectSystem") == ["strict"]


def test_all_units_are_hardened_in_the_same_way() -> None:
    hardening = [UNITS[name].read_text("utf-8").partition("NoNewPrivileges=yes")[2] for name in UNITS]
    hardening = [each.partition("[Install]")[0].strip() for each in hardening]
    assert len(set(hardening)) == 1


@every_unit
def test_a_unit_names_only_existing_settings(name: str) -> None:
    assert set(SETTING.findall(UNITS[name].read_text("utf-8"))) <= KNOWN
