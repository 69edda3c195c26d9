"""The script .ci/run installs missing packages, but only in CI, and runs the checks."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "run"
PROGRAMS = """\
# program  Debian packages
bash  package-of-bash
/no/such/server  package-of-server
no-such-program  package-of-program another-package
"""
APT_GET = """\
echo "apt-get $* ($DEBIAN_FRONTEND, services: $(sh {policy}; echo $?))" >> {calls}
echo "try $(wc -l < {calls})"
! grep -qx "{failing}" <<< "$1 $(grep -c "^apt-get $1" {calls})"
"""
UPDATE = "apt-get update (noninteractive, services: 101)"
PACKAGES = "package-of-server package-of-program another-package"
INSTALL = f"apt-get install --yes --no-install-recommends {PACKAGES} (noninteractive, services: 101)"
MAKE = ["make check", "make test"]


@dataclass(frozen=True)
class ScriptCopy:
    """A copy of the script with commands that only record how they are called."""

    folder: Path

    @property
    def policy(self) -> Path:
        return self.folder / "policy-rc.d"

    def command(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)

    def run(self, *, ci: str | None = "true", user: int = 0, failing: str = "never") -> tuple[int, list[str], str]:
        """Return the exit code, the calls and the output; ``failing`` is a pattern of an apt-get step and its try."""
        calls = self.folder / "calls"
        self.command("id", f"echo {user}")
        self.command("sleep", "")
        self.command("make", f'echo "make $*" >> {calls}')
        self.command("apt-get", APT_GET.format(policy=self.policy, calls=calls, failing=failing))
        environment = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"} | ({"CI": ci} if ci else {})
        finished = subprocess.run(
            [self.folder / ".ci" / "run"], env=environment, capture_output=True, text=True, check=False
        )
        return finished.returncode, calls.read_text().splitlines(), finished.stdout + finished.stderr


@pytest.fixture
def script_copy(tmp_path: Path) -> ScriptCopy:
    for name in (".ci", "bin", "tests"):
        (tmp_path / name).mkdir()
    result = ScriptCopy(tmp_path)
    script = SCRIPT.read_text("utf-8")
    assert "=/usr/sbin/policy-rc.d\n" in script
    copy = tmp_path / ".ci" / "run"
    copy.write_text(script.replace("/usr/sbin/policy-rc.d", str(result.policy)))
    copy.chmod(SCRIPT.stat().st_mode)
    (tmp_path / "tests" / "programs.txt").write_text(PROGRAMS)
    return result


def test_the_packages_of_missing_programs_are_installed_without_starting_services(script_copy: ScriptCopy) -> None:
    code, calls, output = script_copy.run()
    assert (code, calls) == (0, [UPDATE, INSTALL, *MAKE])
    assert output == f"Installing {PACKAGES}\n"
    assert not script_copy.policy.exists()


def test_an_existing_policy_for_services_is_kept(script_copy: ScriptCopy) -> None:
    script_copy.policy.write_text("exit 104")
    _, calls, _ = script_copy.run()
    assert calls[0] == UPDATE.replace("101", "104")
    assert script_copy.policy.read_text() == "exit 104"


@pytest.mark.parametrize(("ci", "user"), [(None, 0), ("false", 0), ("true", 1000)])
def test_nothing_is_installed_outside_ci_or_without_root(script_copy: ScriptCopy, ci: str | None, user: int) -> None:
    assert script_copy.run(ci=ci, user=user) == (0, MAKE, "")


def test_nothing_is_installed_when_every_program_exists(script_copy: ScriptCopy) -> None:
    (script_copy.folder / "tests" / "programs.txt").write_text("bash  package-of-bash\n")
    assert script_copy.run() == (0, MAKE, "")


def test_each_step_is_tried_three_times(script_copy: ScriptCopy) -> None:
    code, calls, output = script_copy.run(failing=r"\w* [12]")
    assert (code, calls) == (0, [*[UPDATE] * 3, *[INSTALL] * 3, *MAKE])
    assert "try" not in output


def test_the_output_of_a_step_is_shown_when_its_last_try_fails(script_copy: ScriptCopy) -> None:
    code, calls, output = script_copy.run(failing="install .")
    assert (code, calls) == (1, [UPDATE, *[INSTALL] * 3])
    assert output.endswith("\ntry 4\n")
    assert not script_copy.policy.exists()
