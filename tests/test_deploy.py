"""The deployment files agree with the code: the image, the Compose file and the example of settings."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tests.command_line import parse
from worker.broker.redis_transport import KEY_PREFIX
from worker.clients.embedded_redis import server_binary
from worker.config.settings import _CREDENTIALS, Settings, load_settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
EXAMPLE = (ROOT / ".env.example").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
WORKERS = {name: service for name, service in OURS.items() if service["command"][0] == "worker"}
SCHEDULED = {name: service for name, service in OURS.items() if "DOCV_RETENTION" in service.get("environment", ())}
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+[\w.-]*(?:@sha256:[0-9a-f]{64})?")
SETTING = re.compile(r"\bDOCV_[A-Z0-9_]+")
KNOWN = {f"DOCV_{name.upper()}" for name in Settings.model_fields}
DOTENV_SETTINGS = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", *sorted(KNOWN)]

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
our_services = pytest.mark.parametrize("service", OURS.values(), ids=OURS)
workers = pytest.mark.parametrize("service", WORKERS.values(), ids=WORKERS)


def instructions(name: str) -> list[str]:
    """Return the arguments of every instruction of one kind in the Dockerfile, in order."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", DOCKERFILE))
    return re.findall(rf"(?m)^{name}\s+(.*)$", joined)


def expanded(value: object, dotenv: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a value of the Compose file as a container sees it, with the variables of an ``.env``."""

    def fill(found: re.Match[str]) -> str:
        name, colon, sign, other = found.groups()
        value = dotenv.get(name)
        is_set = bool(value) if colon else value is not None
        if sign == "+":
            return other if is_set else ""
        return value if is_set and value is not None else other

    return re.sub(r"\$\{(\w+)(:?)([-+])([^}]*)\}", fill, str(value))


def container_environment(service: dict[str, Any], dotenv: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a container with this ``.env``: ``environment`` wins over ``env_file``."""
    from_file = dotenv if [each["path"] for each in service.get("env_file", ())] == [".env"] else {}
    return {**from_file, **{name: expanded(value, dotenv) for name, value in service.get("environment", {}).items()}}


def seconds(duration: str) -> float:
    found = re.fullmatch(r"(\d+)s", duration)
    assert found, "expected seconds"
    return float(found[1])


# --- the Compose file


@every_service
def test_an_image_is_pinned_to_a_version(service: dict[str, Any]) -> None:
    assert PINNED.fullmatch(service["image"])


@every_service
def test_a_service_has_no_privileges(service: dict[str, Any]) -> None:
    user, _, group = service["user"].partition(":")
    assert int(user) > 0 < int(group)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.keys() & {"privileged", "cap_add", "pid", "ipc", "devices"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def mebibytes(amount: str) -> int:
    found = re.fullmatch(r"(\d+)([mg])", amount)
    assert found, "expected m or g"
    return int(found[1]) * {"m": 1, "g": 1024}[found[2]]


@every_service
def test_a_service_has_limits_for_memory_and_processes(service: dict[str, Any]) -> None:
    assert 0 < service["pids_limit"] <= 512
    assert 0 < mebibytes(service["mem_limit"]) <= 4096


@workers
def test_a_worker_has_memory_for_its_bundles(service: dict[str, Any]) -> None:
    assert mebibytes(service["mem_limit"]) >= (Settings.model_fields["memory_bytes"].default >> 20) + 100


def test_redis_has_twice_the_memory_of_its_maxmemory() -> None:
    (gigabytes,) = re.findall(r"--maxmemory (\d+)gb", SERVICES["redis"]["command"])
    assert mebibytes(SERVICES["redis"]["mem_limit"]) >= 2 * 1024 * int(gigabytes)


@every_service
def test_a_service_is_restarted_and_a_nightly_check_runs_once(service: dict[str, Any]) -> None:
    is_check = service.get("profiles") == ["nightly"]
    assert service["restart"] == ("no" if is_check else "unless-stopped")


def test_nightly_checks_need_no_key_of_riskos() -> None:
    checks = {name for name, service in SERVICES.items() if service.get("profiles") == ["nightly"]}
    assert checks == {"verify", "audit", "erase", "retention"}
    assert not any("secrets" in SERVICES[name] for name in checks)


@every_service
def test_a_service_has_a_health_check_when_others_wait_for_it(service: dict[str, Any]) -> None:
    for name, needed in service.get("depends_on", {}).items():
        assert needed["condition"] == "service_healthy"
        assert "healthcheck" in SERVICES[name]


@our_services
def test_our_image_has_our_version(service: dict[str, Any]) -> None:
    assert service["image"] == f"{PROJECT['name']}:{PROJECT['version']}"


@our_services
def test_the_command_line_accepts_the_commands_of_compose(service: dict[str, Any]) -> None:
    parse(service["command"])


@our_services
def test_our_containers_run_as_the_user_of_our_image(service: dict[str, Any]) -> None:
    assert service["user"] == instructions("USER")[-1]


def test_each_queue_has_a_worker_that_serves_no_other() -> None:
    served = [parse(service["command"]).params["queues"] for name, service in WORKERS.items() if name != "rehearsal"]
    assert sorted(served) == ["backfill", "live"]


@workers
def test_a_worker_has_time_to_drain_when_it_is_stopped(service: dict[str, Any]) -> None:
    drain = float(service["environment"].get("DOCV_DRAIN_SECONDS", Settings.model_fields["drain_seconds"].default))
    assert seconds(service["stop_grace_period"]) >= drain + 5


@workers
def test_a_worker_can_read_its_settings(service: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, expanded(value))
    settings = load_settings()
    assert settings.redis_url
    assert settings.archive_url.startswith("s3://")


@pytest.mark.parametrize(
    ("dotenv", "source", "setting"),
    [
        ({"DOCV_RETENTION": "./retention.toml"}, "./retention.toml", "/etc/docv-archive/retention.toml"),
        ({"DOCV_RETENTION": ""}, "/dev/null", ""),
        ({}, "/dev/null", ""),
    ],
)
def test_every_service_with_the_archive_has_the_schedule_of_the_dotenv_file(
    dotenv: dict[str, str], source: str, setting: str
) -> None:
    assert OURS.keys() - SCHEDULED.keys() == {"simulator", "rehearsal"}
    for service in SCHEDULED.values():
        (mount,) = service["volumes"]
        assert (expanded(mount["source"], dotenv), mount["read_only"]) == (source, True)
        assert mount["target"] == "/etc/docv-archive/retention.toml"
        assert container_environment(service, dotenv)["DOCV_RETENTION"] == setting


def test_secrets_are_settings_whose_values_are_not_in_the_compose_file() -> None:
    others = {"prometheus_token"}  # docv-archive does not read it
    assert {name.upper() for name in COMPOSE["secrets"].keys() - others} <= KNOWN
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    assert {service["environment"].get("DOCV_API_KEY") for service in WORKERS.values()} == {None, "simulated-key"}


@pytest.mark.parametrize("name", ["live", "backfill", "serve"])
def test_every_setting_of_the_dotenv_file_reaches_the_container(name: str) -> None:
    # The schedule has another path in the container.
    for setting in set(DOTENV_SETTINGS) - {"DOCV_RETENTION"}:
        assert container_environment(SERVICES[name], {setting: "canary"})[setting] == "canary"


@pytest.mark.parametrize("name", ["live", "backfill", "serve"])
def test_a_dotenv_file_can_switch_to_amazon_s3_with_the_role_of_the_machine(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied = ("DOCV_S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    environment = container_environment(SERVICES[name], dict.fromkeys(emptied, ""))
    assert [environment[setting] for setting in emptied] == ["", "", ""]
    monkeypatch.setenv("DOCV_S3_ENDPOINT", "")
    assert load_settings().s3_endpoint is None


def test_the_try_out_s3_runs_only_with_its_profiles() -> None:
    assert set(SERVICES["s3"]["profiles"]) == {"try-out", *SERVICES["rehearsal"]["profiles"]}
    assert all(service["depends_on"]["s3"]["required"] is False for name, service in WORKERS.items())
    environment = container_environment(SERVICES["live"], {})
    s3 = SERVICES["s3"]["environment"]
    assert {name: environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")} == {
        name: value for name, value in s3.items() if name.startswith("AWS_")
    }


def test_no_setting_of_the_dotenv_file_reaches_the_rehearsal() -> None:
    rehearsal = SERVICES["rehearsal"]
    assert container_environment(rehearsal, dict.fromkeys(DOTENV_SETTINGS, "canary")) == container_environment(
        rehearsal, {}
    )


def test_the_rehearsal_uses_its_simulator_on_loopback_and_no_real_redis_or_archive() -> None:
    live, rehearsal, simulator = (SERVICES[name] for name in ("live", "rehearsal", "simulator"))
    environment, real_environment = rehearsal["environment"], live["environment"]
    listens = parse(simulator["command"]).params
    assert rehearsal["network_mode"] == "service:simulator"
    assert "networks" not in rehearsal
    assert rehearsal["profiles"] == simulator["profiles"] == ["demo"]
    assert environment["DOCV_RISKOS_URL"] == f"http://{listens['host']}:{listens['port']}"
    assert listens["key"] == (environment["DOCV_API_KEY"],)
    assert environment["DOCV_REDIS_URL"] != real_environment["DOCV_REDIS_URL"]
    assert environment["DOCV_ARCHIVE_URL"] != real_environment["DOCV_ARCHIVE_URL"]
    assert "env_file" not in rehearsal


def test_only_serve_and_monitoring_publish_ports_and_serve_needs_no_key_of_riskos() -> None:
    serve = SERVICES["serve"]
    listens = parse(serve["command"]).params
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["serve", "prometheus", "grafana"]
    assert serve["ports"] == [f"127.0.0.1:{listens['port']}:{listens['port']}"]
    assert f":{listens['port']}/livez" in serve["healthcheck"]["test"][-1]
    assert serve["secrets"] == [
        *("docv_webhook_secrets", "docv_intake_tokens", "docv_records_tokens"),
        *("docv_operators", "docv_viewers"),
    ]
    assert SERVICES["live"]["environment"].items() - serve["environment"].items() == {
        ("DOCV_METRICS_HOST", "${DOCV_METRICS_HOST:-0.0.0.0}"),  # it publishes no port
        ("DOCV_METRICS_PORT", "${DOCV_METRICS_PORT:-9464}"),
    }


def test_redis_and_s3_are_on_the_internal_network_only() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert [SERVICES[name]["networks"] for name in ("redis", "s3", "simulator")] == [["inside"]] * 3


def test_monitoring_does_not_reach_redis_and_only_monitoring_reaches_the_metrics() -> None:
    networks_of = {name: set(service.get("networks", ())) for name, service in SERVICES.items()}
    assert COMPOSE["networks"]["watched"] == {"internal": True}
    assert {name for name, networks in networks_of.items() if "watched" in networks} == {
        *("live", "backfill", "serve", "prometheus", "celery-exporter"),
    }
    assert not {"inside", "outside"} & (networks_of["prometheus"] | networks_of["grafana"])
    assert networks_of["grafana"] == {"shown"}
    assert "ports" not in SERVICES["live"]


def test_grafana_has_no_login_and_is_read_only() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert (environment["GF_AUTH_ANONYMOUS_ENABLED"], environment["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("true", "Viewer")
    assert (environment["GF_AUTH_DISABLE_LOGIN_FORM"], environment["GF_AUTH_BASIC_ENABLED"]) == ("true", "false")
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def test_the_celery_exporter_reads_the_keys_of_our_queue() -> None:
    exporter, live = SERVICES["celery-exporter"], SERVICES["live"]
    assert exporter["command"][-1] == f"global_keyprefix={KEY_PREFIX}"
    assert exporter["command"][0] == f"--broker-url={live['environment']['DOCV_REDIS_URL']}"


@every_service
def test_a_mounted_file_exists_and_is_read_only(service: dict[str, Any]) -> None:
    # The schedule is mounted in the long form, and has its own test.
    for volume in (each for each in service.get("volumes", ()) if isinstance(each, str)):
        source, _, target = volume.partition(":")
        if source.startswith("."):
            assert (ROOT / source).is_dir()
            assert target.endswith(":ro")


def test_the_created_bucket_is_the_bucket_in_the_settings() -> None:
    bucket = SERVICES["s3"]["environment"]["S3_BUCKET"]
    for worker in WORKERS.values():
        assert expanded(worker["environment"]["DOCV_ARCHIVE_URL"]).startswith(f"s3://{bucket}")


def test_redis_accepts_its_persistence_options(tmp_path: Path) -> None:
    command = shlex.split(SERVICES["redis"]["command"])
    expected = {"appendonly": "yes", "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction"}
    # Both sides use a relative path of the socket: the absolute one may be too long.
    options = ["--port", "0", "--unixsocket", "redis.sock", "--dir", str(tmp_path)]
    retry = Retry(ConstantBackoff(0.05), retries=200)
    with subprocess.Popen([server_binary(), *command[1:], *options], cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
        try:
            with Redis(unix_socket_path="redis.sock", decode_responses=True, retry=retry) as redis:
                assert redis.config_get(*expected) == expected
        finally:
            server.terminate()
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


# --- the image


def test_the_image_has_a_python_that_is_safe_with_zip_files() -> None:
    for base in instructions("FROM"):
        image = base.split()[0]
        found = re.match(r"python:(\d+)\.(\d+)\.(\d+)-slim$", image)
        assert found, image
        assert tuple(map(int, found.groups())) >= (3, 13, 14)


def test_the_image_has_labels() -> None:
    (labels,) = instructions("LABEL")
    found = dict(label.split("=", 1) for label in shlex.split(labels))
    assert found == {
        "org.opencontainers.image.title": PROJECT["name"],
        "org.opencontainers.image.description": PROJECT["description"],
        "org.opencontainers.image.version": PROJECT["version"],
        "org.opencontainers.image.licenses": PROJECT["license"],
    }


def test_the_image_contains_no_build_tools() -> None:
    assert len(instructions("FROM")) == 2
    assert [copied for copied in instructions("COPY") if copied.startswith("--from=build")] == [
        "--from=build /opt/docv-archive /opt/docv-archive"
    ]


def test_the_image_installs_only_packages_pinned_by_hash() -> None:
    installs = re.findall(r"pip install (.*?)(?: && |$)", "\n".join(instructions("RUN")), re.MULTILINE)
    assert len(installs) == 3
    assert all("--require-hashes" in each or ("--no-deps" in each and "dist/*.whl" in each) for each in installs)
    assert "uv build --wheel --require-hashes --build-constraints" in DOCKERFILE
    assert not instructions("ADD")


def test_every_choice_of_pins_exists_and_the_smallest_is_the_default() -> None:
    assert instructions("ARG") == ["PINS=runtime"]
    (pins,) = re.findall(r"--build-arg PINS=(\w+)", DOCKERFILE)
    default, larger = (
        dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", (ROOT / "constraints" / f"{name}.txt").read_text("utf-8")))
        for name in ("runtime", pins)
    )
    assert default.items() < larger.items()


def test_the_image_runs_the_worker_as_a_numeric_user() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", instructions("USER")[-1])
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert instructions("ENTRYPOINT") == ['["docv-archive"]']
    parse(yaml.safe_load(instructions("CMD")[-1]))


def test_the_image_writes_to_its_volume_only() -> None:
    [volume] = instructions("VOLUME")
    environment = dict(pair.split("=", 1) for line in instructions("ENV") for pair in shlex.split(line))
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert Path(environment["DOCV_STATE_DIR"]).is_relative_to(volume)
    assert Path(instructions("WORKDIR")[-1]).is_relative_to(volume)


def test_the_health_check_is_one_of_our_commands() -> None:
    [check] = instructions("HEALTHCHECK")
    command, rest = re.search(r"CMD docv-archive (.*?) > /dev/null (.*)$", check).groups()  # type: ignore[union-attr]
    parse(shlex.split(command))
    assert rest == "|| exit 1"  # Docker knows only 0 and 1; we have more


def test_the_build_context_has_exactly_the_files_of_the_image() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] not in {"", "#"}]
    allowed = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    copied = {
        name.rstrip("/") for each in instructions("COPY") if not each.startswith("--from") for name in each.split()[:-1]
    }
    assert lines[0] == "*"
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert not any(fnmatch(name, pattern) for name in (".env", "secrets", ".git") for pattern in allowed)


def test_the_wheel_is_built_from_the_copied_files() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*built["packages"], *PROJECT["license-files"], PROJECT["readme"], "pyproject.toml"}
    assert needed <= {name.rstrip("/") for each in instructions("COPY") for name in each.split()[:-1]}


IMPORT_AS_IN_THE_IMAGE = """
import importlib, importlib.metadata, pkgutil, sys

pinned = set(sys.argv[1:]) | {"docv-archive"}
missing = {
    module
    for module, owners in importlib.metadata.packages_distributions().items()
    if not pinned.intersection(owner.lower().replace("_", "-").replace(".", "-") for owner in owners)
}

class OnlyWhatIsPinned:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"{name} is not pinned for the image", name=name)

sys.meta_path.insert(0, OnlyWhatIsPinned())
for package in map(importlib.import_module, ("worker", "tasks", "scripts")):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
# These two are imported late, by name.
importlib.import_module("kombu.transport.redis")
importlib.import_module("obstore.auth.boto3")
"""


def test_every_runtime_dependency_is_pinned_for_the_image() -> None:
    pins = re.findall(r"(?m)^([\w.-]+)==", (ROOT / "constraints" / "runtime.txt").read_text("utf-8"))
    finished = subprocess.run(
        [sys.executable, "-c", IMPORT_AS_IN_THE_IMAGE, *pins],
        cwd=ROOT,
        env={"DOCV_REDIS_URL": "redis://localhost:6379/0", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr.splitlines()[-1]


# --- the settings


@pytest.mark.parametrize(
    "name",
    ["Dockerfile", "docker-compose.yml", ".env.example", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "README.md"],
)
def test_every_named_setting_exists(name: str) -> None:
    named = set(SETTING.findall((ROOT / name).read_text("utf-8"))) - {"DOCV_"}
    assert named <= KNOWN


def test_the_example_can_be_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(EXAMPLE, "utf-8")
    assert load_settings() == Settings()


def test_each_line_of_the_example_is_valid(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(re.sub(r"(?m)^#(?=DOCV_)", "", EXAMPLE), "utf-8")
    assert load_settings().rate == Settings().rate


def test_the_example_names_the_main_settings_and_is_short() -> None:
    named = set(SETTING.findall(EXAMPLE))
    assert {"DOCV_ENVIRONMENT", "DOCV_API_KEY", "DOCV_ARCHIVE_URL", "DOCV_RATE", "DOCV_REDIS_URL"} <= named
    assert {f"DOCV_{name.upper()}" for name in _CREDENTIALS} <= named
    assert len([line for line in EXAMPLE.splitlines() if line.startswith("# ")]) <= 3
    assert len(EXAMPLE.splitlines()) <= 30
