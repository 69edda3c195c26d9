"""The wheel has every file of the packages, and installs into its own environment as documented."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.repository import PACKAGES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WHEEL = f"docv_archive-{PROJECT['version']}-py3-none-any.whl"
README = (ROOT / "README.md").read_text("utf-8")
INSTALL = README.split("## Install\n")[1].split("\n## ")[0]
TARGET = ROOT / "deploy" / "systemd" / "docv-archive.target"
STEPS = re.findall(
    r"(?m)^# {3}((?:python3 -m venv|/opt/docv-archive/bin/pip) .*?)(?: {4}.*)?$", TARGET.read_text("utf-8")
)
EXTRA = re.compile(r"docv-archive\[\w+\]")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return folder / WHEEL


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        built = {name for name in archive.namelist() if not name.startswith("docv_archive-")}
    files = [path for top in PACKAGES for path in (ROOT / top).rglob("*") if path.is_file()]
    assert built == {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}


def test_the_wheel_runs_in_the_environment_that_the_systemd_steps_create(wheel: Path, tmp_path: Path) -> None:
    make, dependencies, install = STEPS
    environment = tmp_path / "docv-archive"
    assert (ROOT / dependencies.rpartition(" ")[2]).is_file()
    # Without a network, the pinned packages come from the environment of the tests.
    for step in (make, install):
        command = step.replace("python3", sys.executable).replace("/opt/docv-archive", str(environment))
        words = [str(wheel) if word == "." else word for word in command.split()]
        offline = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        subprocess.run(words, cwd=tmp_path, env=offline, check=True, capture_output=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "tests.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    shown = subprocess.run(
        [environment / "bin" / "docv-archive", "--version"],
        cwd=tmp_path,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"docv-archive, version {PROJECT['version']}\n", "")
    locate = [environment / "bin" / "python", "-c", "import scripts.simulator as it; print(it.__file__)"]
    imported = subprocess.run(locate, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=True)
    assert Path(imported.stdout.strip()).is_relative_to(packages)


def test_the_readme_names_the_wheel_and_the_command_of_this_version() -> None:
    block = re.findall(r"(?ms)^```\n(.*?)^```$", INSTALL)[0]
    assert [line.split("#")[0].strip() for line in block.splitlines()] == [
        "uv tool install .",
        f"uv tool install {WHEEL}",
        "docv-archive --version",
    ]
    assert all(f"`{package}`" in INSTALL for package in PACKAGES)


def test_pages_and_errors_name_no_package_that_is_not_published() -> None:
    files = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *(path for top in PACKAGES for path in ROOT.glob(f"{top}/**/*.py")),
    ]
    named = {str(path) for path in files if path.name != "extras.py" and EXTRA.search(path.read_text("utf-8"))}
    assert named == set()


def test_the_steps_for_systemd_are_complete() -> None:
    assert "…" not in TARGET.read_text("utf-8")
    assert len(STEPS) == 3


def test_the_release_steps_build_check_and_list_the_components() -> None:
    releases = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## Releases\n")[1].split("\n## ")[0]
    for step in (
        "uv build --require-hashes",
        "twine check --strict dist/*",
        "cyclonedx-py requirements",
        "--sbom=true",
    ):
        assert step in releases
    for name in ("Dockerfile", "docker-compose.yml", "deploy/kubernetes/base/kustomization.yaml"):
        assert name in releases
        assert PROJECT["version"] in (ROOT / name).read_text("utf-8")
