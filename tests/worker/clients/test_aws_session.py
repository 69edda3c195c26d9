"""Unusable AWS credentials are reported in one sentence. It gives the cause and, after a semicolon, the fix."""

from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber

from worker.clients import aws_session
from worker.clients.aws_session import open_aws_session
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import SettingsError

PAIR = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
ROLE = "role_arn=arn:aws:iam::123456789012:role/archive"
SSO = "sso_start_url=https://x.awsapps.com/start\nsso_region=us-east-1\nsso_account_id=1\nsso_role_name=r"
PROCESS = "run its command from ~/.aws/config by hand"


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a home folder without AWS configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    folder = tmp_path / ".aws"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("variables", "config", "message"),
    [
        ({}, "", "no AWS credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_PROFILE": "prd"}, "", "AWS_PROFILE: there is no profile prd; `aws configure list-profiles`"),
        ({"AWS_ACCESS_KEY_ID": "x"}, "", "half of the AWS key pair is missing; set AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "x"}, "", "half of the AWS key pair is missing; set AWS_ACCESS_KEY_ID"),
        ({}, "aws_access_key_id=x", "half of the AWS key pair is missing; set aws_secret_access_key"),
        ({}, "credential_process=/bin/sh -c 'echo geheim >&2; exit 3'", PROCESS),
        ({}, "credential_process=/bin/echo '{\"Version\": 1}'", PROCESS),
        ({}, "credential_process=/no/such/program", "/no/such/program: No such file or directory; check"),
        ({}, "credential_process=/bin/echo geheim", "cannot be read (JSONDecodeError); check"),
        ({}, "credential_process=/bin/echo '[]'", "cannot be read (AttributeError); check"),
        ({}, "]\nnot a line of a configuration", ".aws/config is not a valid AWS configuration file; fix it"),
        ({"AWS_ROLE_ARN": "a", "AWS_WEB_IDENTITY_TOKEN_FILE": "/no/token"}, "", "/no/token: No such file or directory"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/token"}, "", "no role ARN configured"),
        ({**PAIR, "AWS_DEFAULT_REGION": "eu central"}, "", "'eu central' is not a region of AWS; set"),
        ({}, f"{ROLE}\nsource_profile=other", 'source_profile "other" referenced in the profile "default"'),
        ({}, SSO, "the login to AWS is missing or has ended (Error loading SSO Token"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com"}, "", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        (
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1"},
            "",
            "credentials come from container-role; check",
        ),
    ],
)
def test_unusable_credentials_are_reported_in_one_sentence(
    aws: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], config: str, message: str
) -> None:
    (aws / "config").write_text(f"[default]\n{config}\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        open_aws_session()
    (line,) = caught.value.lines
    assert message in line
    assert "; " in line
    assert "\n" not in line
    assert "geheim" not in line


def test_a_credentials_file_that_is_not_text_is_reported(aws: Path) -> None:
    (aws / "credentials").write_bytes(b"\xff\xfe[\0d\0")
    with pytest.raises(SettingsError, match=r"\.aws/credentials is not a valid AWS configuration file"):
        open_aws_session()


def test_a_role_is_unavailable_if_sts_does_not_answer(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = "aws_access_key_id=x\naws_secret_access_key=y"
    (aws / "config").write_text(f"[default]\n{ROLE}\nsource_profile=keys\nregion=us-east-1\n[profile keys]\n{keys}\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ServiceUnavailable, match=r"does not answer a request for credentials \(EndpointConnection"):
        open_aws_session()


def test_a_refused_role_is_reported_with_the_error_code(monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("sts", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
    with Stubber(client) as stubber:
        stubber.add_client_error("assume_role", "AccessDenied")
        monkeypatch.setattr(boto3, "Session", lambda **_: client.assume_role(RoleArn="a" * 20, RoleSessionName="us"))
        with pytest.raises(
            SettingsError, match=r"AWS gives no credentials \(AssumeRole: AccessDenied\); check the role"
        ):
            aws_session.open_aws_session()


def test_a_key_pair_opens_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PAIR.items():
        monkeypatch.setenv(name, value)
    assert open_aws_session().get_credentials().access_key == "testing"
