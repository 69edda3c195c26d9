"""Each file that cannot be read, or whose name is not that of a setting, is reported in one sentence."""

import os
from pathlib import Path

import pytest

from worker.config import setting_files
from worker.config.settings import SettingsError, load_settings

KEY = "s3cr3t-k3y"


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setattr(setting_files, "_RUN_SECRETS", folder)  # /run belongs to the machine
    return folder


def find_problem() -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    (line,) = caught.value.lines
    assert KEY not in line
    return line


@pytest.mark.parametrize(
    ("encoding", "message"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("latin-1", "not text in UTF-8"), ("cp1252", "not text in UTF-8")],
)
def test_a_file_in_another_encoding_is_reported(tmp_path: Path, secrets: Path, encoding: str, message: str) -> None:
    (tmp_path / ".env").write_text(f"# Schlüssel\nDOCV_API_KEY={KEY}\n", encoding=encoding)
    assert find_problem().startswith(".env is ")
    assert message in find_problem()
    (tmp_path / ".env").unlink()
    (secrets / "docv_api_key").write_text(f"{KEY}ü", encoding=encoding)
    assert find_problem().startswith(f"{secrets / 'docv_api_key'} is ")
    assert message in find_problem()


@pytest.mark.parametrize("target", ["nowhere", ".env"])
def test_a_dangling_link_named_like_the_dotenv_file_is_reported(tmp_path: Path, target: str) -> None:
    (tmp_path / ".env").symlink_to(target)
    assert find_problem().startswith(".env cannot be read: ")


def test_a_folder_named_like_the_dotenv_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert load_settings().rate == 10


@pytest.mark.skipif(os.geteuid() == 0, reason="root ignores file permissions")
def test_a_file_without_permission_is_reported(tmp_path: Path, secrets: Path) -> None:
    for file in (tmp_path / ".env", secrets / "docv_api_key"):
        file.touch(mode=0o000)
        assert "cannot be read: Permission denied" in find_problem()
        file.unlink()


def test_a_dangling_link_named_like_a_secret_is_reported(secrets: Path) -> None:
    (secrets / "docv_api_key").symlink_to(secrets / "nowhere")
    assert "docv_api_key cannot be read: No such file" in find_problem()


def test_a_folder_named_like_a_secret_is_reported(secrets: Path) -> None:
    (secrets / "docv_api_key").mkdir()
    assert "docv_api_key is a folder" in find_problem()


def test_a_link_out_of_the_secrets_folder_is_reported(secrets: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(KEY)
    (secrets / "docv_api_key").symlink_to(tmp_path / "elsewhere")
    assert f"leads out of {secrets}" in find_problem()


def test_a_kubernetes_secret_is_read_through_its_links(secrets: Path) -> None:
    (secrets / "..2026").mkdir()
    (secrets / "..2026" / "docv_api_key").write_text(KEY)
    (secrets / "..data").symlink_to("..2026")
    (secrets / "docv_api_key").symlink_to("..data/docv_api_key")
    assert load_settings().need_api_key().get_secret_value() == KEY


def test_a_secret_that_is_not_a_setting_is_reported_with_a_similar_name(secrets: Path) -> None:
    (secrets / "other_program").write_text(KEY)
    (secrets / "docv_apikey").write_text(KEY)
    assert find_problem() == f"{secrets / 'docv_apikey'} is not a setting of this version; did you mean DOCV_API_KEY?"


def test_credentials_of_systemd_are_read(secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    (secrets / "docv_api_key").write_text("another")
    (folder / "docv_api_key").write_text(f"{KEY}\n")
    assert load_settings().need_api_key().get_secret_value() == KEY
    (folder / "docv_apikey").write_text(KEY)
    assert find_problem().startswith(f"{folder / 'docv_apikey'} is not a setting")
