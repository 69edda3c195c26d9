"""The manifests for Kubernetes, held against the API's schemas, each other, the Compose file and the settings."""

import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.command_line import parse
from tests.test_deploy import COMPOSE, KNOWN, PROJECT, instructions
from worker.app import BACKFILL, LIVE
from worker.broker.redis_transport import KEY_PREFIX
from worker.config.settings import Settings, load_settings

FOLDER = Path(__file__).parents[1] / "deploy" / "kubernetes"
Object = dict[str, Any]


def documents(path: Path) -> list[Object]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def resources(overlay: str) -> list[Object]:
    """What a folder's kustomization names of its own, in its order."""
    (plan,) = documents(FOLDER / overlay / "kustomization.yaml")
    own = [name for name in plan["resources"] if (FOLDER / overlay / name).is_file()]
    return [found for name in own for found in documents(FOLDER / overlay / name)]


BASE, KEDA = resources("base"), resources("keda")
(PLAN,) = documents(FOLDER / "base" / "kustomization.yaml")
SETTINGS = dict(re.findall(r"(?m)^(\w+)=(.*)$", (FOLDER / "base" / "settings.env").read_text("utf-8")))
DEPLOYMENTS = {
    found["metadata"]["name"].removeprefix("docv-archive-"): found
    for found in BASE
    if "replicas" in found.get("spec", ())
}
WORKERS = {name: found for name, found in DEPLOYMENTS.items() if name != "serve"}
PODS = {name: found["spec"]["template"]["spec"] for name, found in DEPLOYMENTS.items()}

every_deployment = pytest.mark.parametrize("name", DEPLOYMENTS)
every_worker = pytest.mark.parametrize("name", WORKERS)


def of_kind(kind: str, among: list[Object] = BASE) -> dict[str, Object]:
    return {found["metadata"]["name"].removeprefix("docv-archive-"): found for found in among if found["kind"] == kind}


def container(name: str) -> Object:
    (only,) = PODS[name]["containers"]
    return dict(only)


def labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "docv-archive", "app.kubernetes.io/component": name}


def secrets(name: str) -> dict[str, tuple[str, str]]:
    """Which file of which secret is mounted under which name in /run/secrets."""
    holds = {volume["name"]: volume["secret"]["secretName"] for volume in PODS[name]["volumes"] if "secret" in volume}
    mounts = [mount for mount in container(name)["volumeMounts"] if mount["name"] in holds]
    assert all(mount["readOnly"] and mount["mountPath"].startswith("/run/secrets/") for mount in mounts)
    return {mount["mountPath"].rpartition("/")[2]: (holds[mount["name"]], mount["subPath"]) for mount in mounts}


@pytest.mark.parametrize("overlay", ["base", "keda"])
def test_a_kustomization_names_exactly_the_files_that_are_there(overlay: str) -> None:
    (plan,) = documents(FOLDER / overlay / "kustomization.yaml")
    told = [*plan["resources"], *(name for each in plan.get("configMapGenerator", ()) for name in each["envs"])]
    there = {path.name for path in (FOLDER / overlay).iterdir()} - {"kustomization.yaml"}
    assert {name for name in told if not name.startswith("../")} == there
    assert all((FOLDER / overlay / name).exists() for name in told)


@pytest.mark.parametrize("found", BASE, ids=lambda found: f"{found['kind']}-{found['metadata']['name']}")
def test_the_api_knows_every_field(found: Object) -> None:
    kubernetes_validate.validate(found, "1.30", strict=True)


def kubectl(*arguments: str | Path) -> str:
    command = ["kubectl", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.needs("kubectl")
@pytest.mark.parametrize("overlay", ["base", "keda"])
def test_kustomize_makes_of_it_what_was_meant(overlay: str) -> None:
    version = json.loads(kubectl("version", "--client", "--output=json"))["clientVersion"]
    if int(version["minor"].rstrip("+")) < 21:
        pytest.skip("kubectl before 1.21 has kustomize 2, which does not know `envs`; Debian 12 has kubectl 1.20")
    found: list[Object] = list(yaml.safe_load_all(kubectl("kustomize", FOLDER / overlay)))
    assert {each["metadata"].get("namespace") for each in found if each["kind"] != "Namespace"} == {"docv-archive"}
    (told,) = [each for each in found if each["kind"] == "ConfigMap"]
    assert told["data"] == SETTINGS
    deployments = of_kind("Deployment", found)
    for name, each in deployments.items():
        (only,) = each["spec"]["template"]["spec"]["containers"]
        assert only["image"] == f"{PROJECT['name']}:{PROJECT['version']}"
        assert only["envFrom"] == [{"configMapRef": {"name": told["metadata"]["name"]}}]
        assert ("replicas" in each["spec"]) == (overlay == "base" or name == "serve")


def test_the_image_is_ours_in_our_version() -> None:
    (image,) = PLAN["images"]
    assert (image["name"], image["newTag"]) == (PROJECT["name"], PROJECT["version"])
    assert {container(name)["image"] for name in PODS} == {image["name"]}


# --- what runs


def test_the_same_runs_here_as_with_compose() -> None:
    for name in DEPLOYMENTS:
        assert container(name)["args"] == COMPOSE["services"][name]["command"]
        parse(container(name)["args"])


def test_the_workers_differ_by_name_queue_and_number_only() -> None:
    live, backfill = (
        yaml.safe_dump(WORKERS[name] | {"spec": WORKERS[name]["spec"] | {"replicas": 1}}) for name in WORKERS
    )
    assert live.replace(LIVE, BACKFILL) == backfill


@every_deployment
def test_a_pod_can_do_little(name: str) -> None:
    user, group = map(int, instructions("USER")[-1].split(":"))
    assert PODS[name]["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert PODS[name]["automountServiceAccountToken"] is False
    assert of_kind("ServiceAccount")[PODS[name]["serviceAccountName"]]["automountServiceAccountToken"] is False


@every_deployment
def test_what_is_written_to_has_a_bound(name: str) -> None:
    bounded = {volume["name"] for volume in PODS[name]["volumes"] if volume.get("emptyDir", {}).get("sizeLimit")}
    written = {mount["mountPath"] for mount in container(name)["volumeMounts"] if mount["name"] in bounded}
    assert written == {*instructions("VOLUME"), "/tmp"}  # noqa: S108  # in the container


@every_deployment
def test_a_pod_asks_for_what_it_needs_and_gets_no_more_memory(name: str) -> None:
    resources = container(name)["resources"]
    assert {"cpu", "memory"} <= resources["requests"].keys()
    assert "cpu" not in resources["limits"]
    assert mebibytes(resources["limits"]["memory"]) >= mebibytes(resources["requests"]["memory"])


def mebibytes(amount: str) -> int:
    figure, unit = int(amount[:-2]), amount[-2:]
    return figure * {"Mi": 1, "Gi": 1024}[unit]


@every_worker
def test_a_worker_has_room_for_its_bundles(name: str) -> None:
    bundles = int(SETTINGS.get("DOCV_MEMORY_BYTES", Settings.model_fields["memory_bytes"].default)) >> 20
    resources = container(name)["resources"]
    (spool,) = [each["emptyDir"]["sizeLimit"] for each in PODS[name]["volumes"] if each["name"] == "spool"]
    assert mebibytes(resources["limits"]["memory"]) >= bundles + 136
    assert mebibytes(resources["limits"]["ephemeral-storage"]) > mebibytes(spool)


@every_worker
def test_a_worker_may_finish_what_it_began(name: str) -> None:
    drain = float(SETTINGS.get("DOCV_DRAIN_SECONDS", Settings.model_fields["drain_seconds"].default))
    assert PODS[name]["terminationGracePeriodSeconds"] >= drain + 5


@every_worker
def test_a_worker_is_never_restarted_for_waiting(name: str) -> None:
    probed = {probe for probe in container(name) if probe.endswith("Probe")}
    assert probed == {"startupProbe"}
    command, *arguments = container(name)["startupProbe"]["exec"]["command"]
    assert [command] == yaml.safe_load(instructions("ENTRYPOINT")[-1])
    parse(arguments)


def test_the_doors_are_probed_where_they_answer() -> None:
    doors = container("serve")
    (port,) = doors["ports"]
    told = parse(doors["args"]).params
    assert (told["host"], told["port"]) == ("0.0.0.0", port["containerPort"])  # noqa: S104
    assert {probe: doors[probe]["httpGet"] for probe in doors if probe.endswith("Probe")} == {
        "startupProbe": {"path": "/livez", "port": port["name"]},
        "livenessProbe": {"path": "/livez", "port": port["name"]},
        "readinessProbe": {"path": "/livez", "port": port["name"]},
    }
    (service,) = of_kind("Service").values()
    assert service["spec"]["ports"] == [{"name": "http", "port": port["containerPort"], "targetPort": port["name"]}]


# --- what belongs together


@every_deployment
def test_labels_and_selectors_agree(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    assert deployment["metadata"]["labels"] == labels(name)
    assert deployment["spec"]["selector"]["matchLabels"] == labels(name)
    assert deployment["spec"]["template"]["metadata"]["labels"] == labels(name)
    (spread,) = PODS[name]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels(name)
    budget = of_kind("PodDisruptionBudget")[name]["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": labels(name)}}


def test_the_service_leads_to_the_doors() -> None:
    assert of_kind("Service")["serve"]["spec"]["selector"] == labels("serve")


@every_deployment
def test_a_pod_sees_the_secrets_that_compose_gives_it_and_redis_and_no_other(name: str) -> None:
    wanted = {*COMPOSE["services"][name]["secrets"], "docv_redis_url"}
    mounted = secrets(name)
    assert mounted.keys() == wanted
    assert {setting.upper() for setting in mounted} <= KNOWN
    assert all(key == setting for setting, (_, key) in mounted.items())


def test_every_secret_is_told_how_to_make() -> None:
    text = (FOLDER / "base" / "kustomization.yaml").read_text("utf-8")
    told = {
        (secret, key)
        for secret, files in re.findall(r"create secret generic (\S+)((?: --from-file=\w+)+)", text)
        for key in re.findall(r"--from-file=(\w+)", files)
    }
    assert told == {each for name in PODS for each in secrets(name).values()}


def test_what_the_pods_are_told_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, value in SETTINGS.items():
        monkeypatch.setenv(setting, value)
    assert load_settings().archive_url.startswith("s3://")
    assert not SETTINGS.keys() & {key.upper() for name in PODS for key in secrets(name)}


@every_deployment
def test_kubernetes_adds_no_variable_that_would_be_taken_for_a_setting(name: str) -> None:
    # A Service docv-archive-serve would make DOCV_ARCHIVE_SERVE_PORT, and an unknown DOCV_ name is refused at start.
    assert PODS[name]["enableServiceLinks"] is False


# --- who speaks to whom


def test_workers_hear_nobody_and_speak_to_names_redis_and_tls_only() -> None:
    everybody = of_kind("NetworkPolicy")["docv-archive"]["spec"]
    assert everybody["podSelector"]["matchLabels"].items() <= labels("live").items()
    assert everybody["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everybody
    out = {(port["protocol"], port["port"]) for rule in everybody["egress"] for port in rule["ports"]}
    assert out == {("UDP", 53), ("TCP", 53), ("TCP", 6379), ("TCP", 443)}


def test_the_doors_are_open_to_namespaces_that_somebody_named() -> None:
    doors = of_kind("NetworkPolicy")["serve"]["spec"]
    assert doors["podSelector"]["matchLabels"] == labels("serve")
    (rule,) = doors["ingress"]
    (who,) = rule["from"]
    assert who["namespaceSelector"]["matchLabels"]
    assert [port["port"] for port in rule["ports"]] == [container("serve")["ports"][0]["name"]]


# --- KEDA


@every_worker
def test_keda_looks_at_the_list_that_celery_fills(name: str) -> None:
    scaled = of_kind("ScaledObject", KEDA)[name]["spec"]
    assert scaled["scaleTargetRef"]["name"] == DEPLOYMENTS[name]["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    assert trigger["type"] == "redis"
    assert trigger["metadata"]["listName"] == KEY_PREFIX + name
    assert trigger["authenticationRef"]["name"] in of_kind("TriggerAuthentication", KEDA)


@every_worker
def test_keda_starts_no_more_workers_than_the_rate_can_keep_busy(name: str) -> None:
    rate = float(SETTINGS.get("DOCV_RATE", Settings.model_fields["rate"].default))
    in_flight = int(SETTINGS.get("DOCV_CONCURRENCY", Settings.model_fields["concurrency"].default))
    slow_evaluation = 10
    scaled = of_kind("ScaledObject", KEDA)[name]["spec"]
    assert scaled["maxReplicaCount"] == math.ceil(rate * slow_evaluation / in_flight)
    # Who feeds a backfill's queue from its list is a worker: with none, the queue stays empty and none would come.
    assert scaled["minReplicaCount"] >= 1
