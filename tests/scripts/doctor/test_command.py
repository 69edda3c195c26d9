"""`doctor` prints a finding for each check, and its exit code reflects the worst one."""

import json
from pathlib import Path

from scripts.doctor.command import exit_code
from scripts.doctor.finding import fine, warning, wrong
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.server import start_simulator
from tests.commands import KEY, Shell


async def test_doctor_finds_nothing_wrong_in_a_working_installation(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    async with await start_simulator(SimulatorOptions(api_key=KEY)) as riskos:
        shell = Shell(tmp_path, {"DOCV_API_KEY": KEY, "DOCV_RISKOS_URL": riskos.url})
        finished = await shell.run("doctor", "--json")
        as_text = await shell.run("doctor")
    assert (finished.code, finished.err) == (0, "")
    findings = json.loads(finished.out)["findings"]
    assert {finding["state"] for finding in findings} <= {"fine", "warning"}
    assert len(as_text.out.splitlines()) == len(findings)
    assert KEY not in finished.out + as_text.out
    assert list((tmp_path / "archive").iterdir()) == []


async def test_doctor_checks_everything_else_when_redis_and_rabbitmq_are_down(tmp_path: Path) -> None:
    async with await start_simulator(SimulatorOptions(api_key=KEY)) as riskos:
        settings = {"DOCV_API_KEY": KEY, "DOCV_RISKOS_URL": riskos.url, "DOCV_REDIS_URL": "redis://127.0.0.1:1/0"}
        settings["DOCV_BROKER_URL"] = "amqp://user:secret-word@127.0.0.1:1//"
        finished = await Shell(tmp_path, settings).run("doctor", "--json")
    assert (finished.code, finished.err) == (3, "")
    states = {finding["what"]: finding["state"] for finding in json.loads(finished.out)["findings"]}
    assert [what for what, state in states.items() if state == "wrong"] == ["Redis", "RabbitMQ"]
    assert "secret-word" not in finished.out


async def test_doctor_reports_a_misspelled_setting(tmp_path: Path) -> None:
    finished = await Shell(tmp_path, {"DOCV_RATES": "5"}).run("doctor")
    assert finished.code == 1
    assert "DOCV_RATE" in finished.out


def test_the_exit_code_reflects_the_worst_finding() -> None:
    assert exit_code([fine("a", "b"), warning("a", "b", "c")]) == 0
    assert exit_code([wrong("a", "b", "c")]) == 1
    assert exit_code([wrong("a", "b", "c"), wrong("a", "b", "c", unreachable=True)]) == 3
