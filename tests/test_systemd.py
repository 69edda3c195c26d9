"""The units for a machine without containers, held against the Compose file, the settings, and systemd's own check."""

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
WORKERS = [name for name in UNITS if name != "serve"]

every_unit = pytest.mark.parametrize("name", UNITS)


def lines(name: str, setting: str) -> list[str]:
    return re.findall(rf"(?m)^{setting}=(.*)$", UNITS[name].read_text("utf-8"))


def test_there_is_a_unit_for_every_door_and_queue() -> None:
    assert set(UNITS) == {"live", "backfill", "serve"}


@every_unit
def test_a_unit_runs_what_compose_runs(name: str) -> None:
    (command,) = lines(name, "ExecStart")
    program, *arguments = command.split()
    assert program == PROGRAM
    parse(arguments)
    # The doors are open to this machine only: a proxy with TLS stands in front.
    assert arguments == [each for each in COMPOSE["services"][name]["command"] if not each.startswith("--host")]


@every_unit
@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_it(name: str, tmp_path: Path) -> None:
    unit = tmp_path / UNITS[name].name.replace("@", "@1")
    # It looks whether the program is there.
    unit.write_text(UNITS[name].read_text("utf-8").replace(PROGRAM, sys.executable), "utf-8")
    shutil.copy(FOLDER / "docv-archive.target", tmp_path)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit, tmp_path / "docv-archive.target"],  # noqa: S607  # wherever it is
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@every_unit
def test_a_unit_comes_back_except_from_a_setting_that_a_person_must_mend(name: str) -> None:
    assert lines(name, "Restart") == ["always"]
    assert lines(name, "RestartPreventExitStatus") == [str(USAGE)]
    assert lines(name, "StartLimitIntervalSec") == ["0"]


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_may_finish_what_it_began(name: str) -> None:
    (seconds,) = lines(name, "TimeoutStopSec")
    assert float(seconds) >= Settings.model_fields["drain_seconds"].default + 5


@every_unit
def test_a_unit_sees_the_secrets_that_compose_gives_it_and_redis_and_no_other(name: str) -> None:
    bound = [each.lstrip("-").split(":") for each in lines(name, "BindReadOnlyPaths")]
    files = {Path(inside).name for _, inside in bound}
    assert all(Path(inside).parent == Path("/run/secrets") for _, inside in bound)
    assert all(outside == f"/etc/docv-archive/secrets/{Path(inside).name}" for outside, inside in bound)
    assert files == {*COMPOSE["services"][name]["secrets"], "docv_redis_url", "aws_credentials"}
    assert {file.upper() for file in files} - {"AWS_CREDENTIALS"} <= KNOWN
    assert lines(name, "TemporaryFileSystem") == ["/run/secrets:ro"]


@every_unit
def test_a_unit_writes_to_its_state_directory_only(name: str) -> None:
    (state,) = lines(name, "StateDirectory")
    assert f"DOCV_STATE_DIR=%S/{state}" in lines(name, "Environment")
    assert lines(name, "WorkingDirectory") == [f"%S/{state}"]
    assert lines(name, "ProtectSystem") == ["strict"]


def test_the_units_are_hardened_alike() -> None:
    hardening = [UNITS[name].read_text("utf-8").partition("NoNewPrivileges=yes")[2] for name in UNITS]
    assert len(set(hardening)) == 1


@every_unit
def test_the_units_name_settings_that_exist(name: str) -> None:
    assert set(SETTING.findall(UNITS[name].read_text("utf-8"))) <= KNOWN
