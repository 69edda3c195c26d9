"""Each command reports a misconfiguration in a sentence that names the cause and the next step, without a traceback.

By default every second row is tried with one command; ``--faults=long`` tries all rows with all commands.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from tests.commands import KEY, Shell
from tests.riskos import ReceivedRequest, Reply, http, serve_requests

COMMANDS = {
    "run": ("run", str(uuid4())),
    "worker": ("worker",),
    "serve": ("serve", "--port", "0"),
    "erase": ("erase", str(uuid4()), "--reason", "request 7", "--yes"),
    "doctor": ("doctor",),
}
PASSWORD = "canary-p4ssw0rd"
BUCKET = {"DOCV_ARCHIVE_URL": "s3://bucket/docv", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "config"}
KEYS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": PASSWORD, "AWS_DEFAULT_REGION": "us-east-1"}
S3 = BUCKET | KEYS | {"DOCV_S3_ENDPOINT": "http://{stand_in}"}
ROLE = "[default]\nrole_arn=arn:aws:iam::123456789012:role/archive\nsource_profile=keys\nregion=us-east-1\n"
ROLE += f"[profile keys]\naws_access_key_id=a-key\naws_secret_access_key={PASSWORD}\n"
SSO = "[default]\nsso_start_url=https://x.awsapps.com/start\nsso_region=us-east-1\nsso_account_id=1\nsso_role_name=r\n"
SECRET = {"CREDENTIALS_DIRECTORY": "secrets"}
AT_STAND_IN = {"DOCV_REDIS_URL": "redis://{stand_in}/0"}


@dataclass(frozen=True)
class Row:
    """One misconfiguration.

    Attributes:
        settings: environment; ``{stand_in}`` is replaced with host and port of a server that sends ``answer``, and
            ``{redis}`` with the URL of a Redis.
        words: parts of the expected message, about the cause and about the fix.
        files: contents of files in the working directory, by name; None creates a dangling link.
        answer: what the server sends in response to any request.
    """

    settings: dict[str, str]
    words: tuple[str, ...]
    files: dict[str, bytes | None] = field(default_factory=dict)
    answer: bytes = b""


def _aws(words: tuple[str, ...], config: str | bytes = "", **variables: str) -> Row:
    return Row(BUCKET | variables, words, {"config": config.encode() if isinstance(config, str) else config})


def _setting(name: str, value: str, *words: str) -> Row:
    return Row({name: value}, (name, *words))


def _redis(answer: bytes, *words: str) -> Row:
    return Row(AT_STAND_IN, words, answer=answer)


def _refused(status: int, code: str, *words: str, more: str = "") -> Row:
    body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{PASSWORD}</Message>{more}</Error>"
    return Row(S3, words, answer=http(status, body.encode(), headers={"Content-Type": "application/xml"}))


_SERVER_TIME = f"<ServerTime>{datetime.now(UTC) + timedelta(hours=50):%Y-%m-%dT%H:%M:%SZ}</ServerTime>"
_COMMAND = re.compile(rb"^\*\d+\r$", re.MULTILINE)
_WEB_IDENTITY = {"AWS_ROLE_ARN": "a-role", "AWS_WEB_IDENTITY_TOKEN_FILE": "token"}
_ASSUMED = http(403, b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>")
ROWS = {
    "no credentials": _aws(("no AWS credentials found", "AWS_PROFILE or a role")),
    "profile": _aws(("there is no profile prd", "aws configure list-profiles"), AWS_PROFILE="prd"),
    "no secret key": _aws(("half of the AWS key pair", "set AWS_SECRET_ACCESS_KEY"), AWS_ACCESS_KEY_ID="x"),
    "no key id": _aws(("half of the AWS key pair", "set AWS_ACCESS_KEY_ID"), AWS_SECRET_ACCESS_KEY="x"),
    "broken config": _aws(("config is not a valid AWS configuration file", "fix it"), "]\nnot a configuration"),
    "config in utf-16": _aws(("config is not a valid AWS configuration file", "fix it"), b"\xff\xfe[\0d\0"),
    "no token": _aws(("token: No such file", "check AWS_WEB_IDENTITY_TOKEN_FILE"), **_WEB_IDENTITY),
    "process fails": _aws(("credential_process gives no", "by hand"), "[default]\ncredential_process=/bin/false\n"),
    "no process": _aws(("/no/such: No such file", "check"), "[default]\ncredential_process=/no/such\n"),
    "process without json": _aws(
        ("cannot be read (JSON", "credential_process in"), "[default]\ncredential_process=/bin/echo x\n"
    ),
    "not logged in": _aws(("the login to AWS is missing or has ended", "`aws sso login`"), SSO),
    "no such region": _aws(
        ("'eu central' is not a region", "AWS_DEFAULT_REGION"), **KEYS | {"AWS_DEFAULT_REGION": "eu central"}
    ),
    "no container": _aws(
        ("come from container-role", "check"), AWS_CONTAINER_CREDENTIALS_FULL_URI="http://127.0.0.1:1"
    ),
    "role refused": Row(
        BUCKET | {"AWS_ENDPOINT_URL_STS": "http://{stand_in}"},
        ("AWS gives no credentials (AssumeRole: AccessDenied)", "trust policy"),
        {"config": ROLE.encode()},
        _ASSUMED,
    ),
    "root folder": _setting("DOCV_ARCHIVE_URL", "file:///", "root of this machine"),
    "password in the bucket": _setting(
        "DOCV_ARCHIVE_URL", f"s3://user:{PASSWORD}@bucket", "without user", "AWS_ACCESS_KEY_ID"
    ),
    "two slashes": _setting("DOCV_ARCHIVE_URL", "s3://bucket//a//b", "no two slashes in a row"),
    "query of a bucket": _setting("DOCV_ARCHIVE_URL", "s3://bucket/p?x=y", "without ? and #"),
    "plain path": _setting("DOCV_ARCHIVE_URL", "/var/lib/archive", "file:///var/lib/archive"),
    "arn": _setting("DOCV_ARCHIVE_URL", "arn:aws:s3:::bucket", "an ARN cannot be used", "s3://bucket/prefix"),
    "google": _setting("DOCV_ARCHIVE_URL", "gs://bucket", "neither a folder nor an S3", "s3://bucket/prefix"),
    "azure": _setting("DOCV_ARCHIVE_URL", "az://container/x", "neither a folder nor an S3", "s3://bucket/prefix"),
    "no bucket": _setting("DOCV_ARCHIVE_URL", "s3:///prefix", "s3://bucket/prefix"),
    "endpoint": _setting("DOCV_S3_ENDPOINT", "s3.example.com", "http"),
    "redis option": _setting(
        "DOCV_REDIS_URL", f"redis://:{PASSWORD}@127.0.0.1/0?socket_timeout=5", "socket_timeout cannot", "db"
    ),
    "redis hash": _setting("DOCV_REDIS_URL", f"redis://:{PASSWORD}#@127.0.0.1/0", "%23"),
    "redis two at": _setting("DOCV_REDIS_URL", f"redis://:a@{PASSWORD}@127.0.0.1/0", "%40"),
    "redis scheme": _setting("DOCV_REDIS_URL", "http://127.0.0.1:6379", "redis://host:6379/0"),
    "redis port": _setting("DOCV_REDIS_URL", "redis://127.0.0.1:port/0"),
    "broker": _setting("DOCV_BROKER_URL", "sqs://", "amqps://"),
    "rate": _setting("DOCV_RATE", "fast", "valid number"),
    "half a lock": Row({"DOCV_LOCK_MODE": "COMPLIANCE"}, ("DOCV_LOCK_DAYS", "set both, or none")),
    "two encryptions": Row({"DOCV_SSE": "AES256", "DOCV_KMS_KEY_ID": "alias/x"}, ("DOCV_SSE", "set only one of them")),
    "misspelt": _setting("DOCV_RIKSOS_URL", "https://riskos.example", "did you mean DOCV_RISKOS_URL?"),
    "dotenv in utf-16": Row(
        {}, (".env is text in UTF-16", "save it as UTF-8"), {".env": "DOCV_RATE=1".encode("utf-16")}
    ),
    "dotenv in latin-1": Row({}, (".env is not text in UTF-8", "save it as UTF-8"), {".env": b"# Schl\xfcssel\n"}),
    "dotenv link": Row({}, (".env cannot be read: No such file", "the link"), {".env": None}),
    "secret link": Row(SECRET, ("docv_api_key cannot be read", "the link"), {"secrets/docv_api_key": None}),
    "secret in latin-1": Row(SECRET, ("docv_api_key is not text", "UTF-8"), {"secrets/docv_api_key": b"\xfc"}),
    "secret misspelt": Row(
        SECRET, ("docv_api_keys is not a setting", "did you mean DOCV_API_KEY"), {"secrets/docv_api_keys": b"x"}
    ),
    "secret folder": Row(
        SECRET, ("docv_api_key is a folder", "put the secret into a file"), {"secrets/docv_api_key/x": b""}
    ),
    "redis login": Row(
        {"DOCV_REDIS_URL": "{redis_of_unknown_user}"}, ("does not accept user and password", "%40 %2F %23 %25")
    ),
    "redis database": Row(
        {"DOCV_REDIS_URL": "{redis}?db=99"}, ("has no database with this number", "end DOCV_REDIS_URL in /0")
    ),
    "redis requires a password": _redis(
        b"-NOAUTH Authentication required.\r\n", "requires a password", "redis://user:password@host"
    ),
    "redis acl": _redis(
        b"-NOPERM User x has no permissions to run the 'info' command\r\n", "(NOPERM)", "login-of-redis"
    ),
    "redis cluster": _redis(
        b"-MOVED 866 127.0.0.1:7000\r\n", "cluster mode, which is not supported", "without cluster mode"
    ),
    "redis is http": _redis(
        b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not the service that answers there", "check host and port"
    ),
    "redis wants tls": _redis(b"\x15\x03\x01\x00\x02\x02\x46", "closes plain connections", "use rediss://"),
    "redis without tls": Row(
        {"DOCV_REDIS_URL": "rediss://{stand_in}/0"}, ("does not speak TLS", "use redis://"), answer=b"-ERR\r\n"
    ),
    "redis disk": _redis(
        b"-MISCONF Errors writing to the AOF file: No space left on device\r\n", "its disk is full", "free some space"
    ),
    "redis host": Row(
        {"DOCV_REDIS_URL": "redis://nowhere.invalid/0"}, ("host name is unknown", "check DOCV_REDIS_URL")
    ),
    "redis refuses": Row({"DOCV_REDIS_URL": "redis://127.0.0.1:1/0"}, ("Redis", "check that it runs")),
    "token expired": _refused(400, "ExpiredToken", "credentials have expired (ExpiredToken)", "`aws sso login`"),
    "clock": _refused(403, "RequestTimeTooSkewed", "the clock differs by 2 days", "NTP", more=_SERVER_TIME),
    "wrong secret key": _refused(
        403, "SignatureDoesNotMatch", "the secret key does not belong to", "AWS_SECRET_ACCESS_KEY"
    ),
    "unknown key": _refused(403, "InvalidAccessKeyId", "does not know the access key", "AWS_ACCESS_KEY_ID"),
    "region": _refused(
        400,
        "AuthorizationHeaderMalformed",
        "in another region, eu-west-3",
        "AWS_DEFAULT_REGION=eu-west-3",
        more="<Region>eu-west-3</Region>",
    ),
    "denied": _refused(403, "AccessDenied", "access is denied", "these credentials need s3:", "docs/iam"),
    "bucket missing": _refused(404, "NoSuchBucket", "there is no", "bucket", "DOCV_ARCHIVE_URL"),
    "page": Row(
        S3, ("a web page came instead of S3's answer", "HTTPS_PROXY"), answer=http(403, b"<html>Blocked</html>")
    ),
    "proxy login": Row(S3, ("the proxy requires a login", "HTTPS_PROXY"), answer=http(407, b"<html>Login</html>")),
    "no s3": Row(S3 | {"DOCV_S3_ENDPOINT": "http://127.0.0.1:1"}, ("S3 does not answer", "check DOCV_S3_ENDPOINT")),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try all rows with all commands, or by default every second row with one command."""
    commands = list(COMMANDS)
    is_long = metafunc.config.getoption("--faults") == "long"
    pairs = [
        (name, command)
        for index, name in enumerate(ROWS)
        for command in (commands if is_long else [commands[index % len(commands)]] * (index % 2))
    ]
    metafunc.parametrize(("name", "command"), pairs)


@contextlib.asynccontextmanager
async def run_stand_in(row: Row) -> AsyncIterator[str]:
    """Run the server that sends the answer of a row; yield its host and port."""

    def answer_s3(request: ReceivedRequest) -> Reply:
        status = int(row.answer.split()[1])
        return Reply(http(status) if request.method == "HEAD" else row.answer)

    async def answer_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                # Commands may arrive together, each as an array. Anything else is not the protocol of Redis.
                writer.write(row.answer * max(1, len(_COMMAND.findall(data))))
                if not row.answer.startswith(b"-"):
                    return  # a server that is not Redis closes the connection

    if row.answer.startswith(b"HTTP/") and row.settings is not AT_STAND_IN:
        async with serve_requests(answer_s3) as server:
            yield server.url.removeprefix("http://")
    else:
        async with await asyncio.start_server(answer_redis, "127.0.0.1", 0) as listener:
            yield "{}:{}".format(*listener.sockets[0].getsockname())


def write_files(folder: Path, files: dict[str, bytes | None]) -> None:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            file.symlink_to("nowhere")
        else:
            file.write_bytes(content)


async def test_a_misconfiguration_is_reported_with_its_cause_and_a_fix(
    tmp_path: Path, redis_url: str, name: str, command: str
) -> None:
    row = ROWS[name]
    write_files(tmp_path, row.files)
    defaults = {"DOCV_RISKOS_URL": "http://127.0.0.1:9", "DOCV_OPERATORS": "a-token-of-an-operator"}
    defaults |= {"DOCV_REDIS_URL": redis_url, "DOCV_API_KEY": KEY}
    async with run_stand_in(row) as stand_in:
        urls = {"stand_in": stand_in, "redis": redis_url}
        urls["redis_of_unknown_user"] = redis_url.replace("://", f"://unknown:{PASSWORD}@")
        settings = {setting: value.format(**urls) for setting, value in row.settings.items()}
        finished = await Shell(tmp_path, defaults | settings).run(*COMMANDS[command], seconds=90)
    output = finished.out if command == "doctor" else finished.err
    assert [word for word in row.words if word not in output] == [], output
    assert finished.code in ({1, 3} if command == "doctor" else {2, 3}), output
    assert "Traceback" not in finished.out + finished.err
    assert [each for each in (PASSWORD, KEY) if each in finished.out + finished.err] == []
