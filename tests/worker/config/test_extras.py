import tomllib
from pathlib import Path
from typing import get_args

import pytest

from worker.config.extras import Extra, explain_extra

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("extra", get_args(Extra))
def test_each_extra_exists_and_the_install_section_of_the_readme_names_it(extra: Extra) -> None:
    assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert f"uv tool install --force '.[{extra}]'" in explain_extra(extra)
    install = (ROOT / "README.md").read_text("utf-8").split("## Install\n")[1].split("\n## ")[0]
    assert f"`{extra}`" in install
