"""The manifests for Kubernetes agree with the API's schemas, each other, the Compose file and the settings."""

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
    """Return the resources that a folder's kustomization names, in its order."""
    (plan,) = documents(FOLDER / overlay / "kustomization.yaml")
    own = [name for name in plan["resources"] if (FOLDER / overlay / name).is_file()]
    return [found for name in own for found in documents(FOLDER / overlay / name)]


OVERLAYS = ["base", "keda", "nightly", "ingress", "prometheus-operator"]
BASE, KEDA, NIGHTLY, INGRESS = (resources(overlay) for overlay in OVERLAYS[:4])
MONITORING = resources("prometheus-operator")
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
    """Return the file of each secret that is mounted in /run/secrets, by its name there."""
    names = {volume["name"]: volume["secret"]["secretName"] for volume in PODS[name]["volumes"] if "secret" in volume}
    mounts = [mount for mount in container(name)["volumeMounts"] if mount["name"] in names]
    assert all(mount["readOnly"] and mount["mountPath"].startswith("/run/secrets/") for mount in mounts)
    return {mount["mountPath"].rpartition("/")[2]: (names[mount["name"]], mount["subPath"]) for mount in mounts}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_kustomization_names_exactly_the_existing_files(overlay: str) -> None:
    (plan,) = documents(FOLDER / overlay / "kustomization.yaml")
    named = [*plan["resources"], *(name for each in plan.get("configMapGenerator", ()) for name in each["envs"])]
    existing = {path.name for path in (FOLDER / overlay).iterdir()} - {"kustomization.yaml"}
    assert {name for name in named if not name.startswith("../")} == existing
    assert all((FOLDER / overlay / name).exists() for name in named)


def test_every_folder_is_tested() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(OVERLAYS)


@pytest.mark.parametrize(
    "found", [*BASE, *NIGHTLY, *INGRESS], ids=lambda found: f"{found['kind']}-{found['metadata']['name']}"
)
def test_the_api_knows_every_field(found: Object) -> None:
    kubernetes_validate.validate(found, "1.30", strict=True)


def kubectl(*arguments: str | Path) -> str:
    command = ["kubectl", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.needs("kubectl")
@pytest.mark.parametrize("overlay", ["base", "keda", "nightly"])
def test_kustomize_renders_the_expected_resources(overlay: str) -> None:
    version = json.loads(kubectl("version", "--client", "--output=json"))["clientVersion"]
    if int(version["minor"].rstrip("+")) < 21:
        pytest.skip("kubectl before 1.21 has kustomize 2, which does not know `envs`; Debian 12 has kubectl 1.20")
    found: list[Object] = list(yaml.safe_load_all(kubectl("kustomize", FOLDER / overlay)))
    assert {each["metadata"].get("namespace") for each in found if each["kind"] != "Namespace"} == {"docv-archive"}
    (config_map,) = [each for each in found if each["kind"] == "ConfigMap"]
    assert config_map["data"] == SETTINGS
    deployments = of_kind("Deployment", found)
    for name, each in deployments.items():
        (only,) = each["spec"]["template"]["spec"]["containers"]
        assert only["image"] == f"{PROJECT['name']}:{PROJECT['version']}"
        assert only["envFrom"] == [{"configMapRef": {"name": config_map["metadata"]["name"]}}]
        assert ("replicas" in each["spec"]) == (overlay != "keda" or name == "serve")


def test_the_image_has_our_name_and_version() -> None:
    (image,) = PLAN["images"]
    assert (image["name"], image["newTag"]) == (PROJECT["name"], PROJECT["version"])
    assert {container(name)["image"] for name in PODS} == {image["name"]}


# --- workloads


def test_the_workloads_run_the_commands_of_compose() -> None:
    for name in DEPLOYMENTS:
        assert container(name)["args"] == COMPOSE["services"][name]["command"]
        parse(container(name)["args"])


def test_the_workers_differ_by_name_queue_and_number_only() -> None:
    live, backfill = (
        yaml.safe_dump(WORKERS[name] | {"spec": WORKERS[name]["spec"] | {"replicas": 1}}) for name in WORKERS
    )
    assert live.replace(LIVE, BACKFILL) == backfill


@every_deployment
def test_a_pod_has_no_privileges(name: str) -> None:
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
    account = PODS[name]["serviceAccountName"]
    assert account == ("docv-archive-serve" if name == "serve" else "docv-archive"), "the server has its own rights"
    accounts = [found for found in BASE if found["kind"] == "ServiceAccount" and found["metadata"]["name"] == account]
    assert [found["automountServiceAccountToken"] for found in accounts] == [False]


@every_deployment
def test_a_writable_volume_has_a_size_limit(name: str) -> None:
    bounded = {volume["name"] for volume in PODS[name]["volumes"] if volume.get("emptyDir", {}).get("sizeLimit")}
    written = {mount["mountPath"] for mount in container(name)["volumeMounts"] if mount["name"] in bounded}
    assert written == {*instructions("VOLUME"), "/tmp"}  # noqa: S108  # in the container


@every_deployment
def test_a_pod_requests_its_resources_and_has_a_memory_limit(name: str) -> None:
    resources = container(name)["resources"]
    assert {"cpu", "memory"} <= resources["requests"].keys()
    assert "cpu" not in resources["limits"]
    assert mebibytes(resources["limits"]["memory"]) >= mebibytes(resources["requests"]["memory"])


def mebibytes(amount: str) -> int:
    number, unit = int(amount[:-2]), amount[-2:]
    return number * {"Mi": 1, "Gi": 1024}[unit]


@every_worker
def test_a_worker_has_memory_for_its_bundles(name: str) -> None:
    bundles = int(SETTINGS.get("DOCV_MEMORY_BYTES", Settings.model_fields["memory_bytes"].default)) >> 20
    resources = container(name)["resources"]
    (spool,) = [each["emptyDir"]["sizeLimit"] for each in PODS[name]["volumes"] if each["name"] == "spool"]
    assert mebibytes(resources["limits"]["memory"]) >= bundles + 100
    assert mebibytes(resources["limits"]["ephemeral-storage"]) > mebibytes(spool)


@every_worker
def test_a_worker_has_time_to_drain_when_it_is_stopped(name: str) -> None:
    drain = float(SETTINGS.get("DOCV_DRAIN_SECONDS", Settings.model_fields["drain_seconds"].default))
    assert PODS[name]["terminationGracePeriodSeconds"] >= drain + 5


@every_worker
def test_a_worker_is_not_restarted_when_it_waits(name: str) -> None:
    probed = {probe for probe in container(name) if probe.endswith("Probe")}
    assert probed == {"startupProbe"}
    command, *arguments = container(name)["startupProbe"]["exec"]["command"]
    assert [command] == yaml.safe_load(instructions("ENTRYPOINT")[-1])
    parse(arguments)


def test_serve_is_probed_at_its_health_routes() -> None:
    serve = container("serve")
    (port,) = serve["ports"]
    options = parse(serve["args"]).params
    assert (options["host"], options["port"]) == ("0.0.0.0", port["containerPort"])  # noqa: S104
    assert {probe: serve[probe]["httpGet"] for probe in serve if probe.endswith("Probe")} == {
        "startupProbe": {"path": "/livez", "port": port["name"]},
        "livenessProbe": {"path": "/livez", "port": port["name"]},
        "readinessProbe": {"path": "/livez", "port": port["name"]},
    }
    (service,) = of_kind("Service").values()
    assert service["spec"]["ports"] == [{"name": "http", "port": port["containerPort"], "targetPort": port["name"]}]


# --- selectors, secrets and settings


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


def test_the_service_selects_the_pods_of_serve() -> None:
    assert of_kind("Service")["serve"]["spec"]["selector"] == labels("serve")


@every_deployment
def test_a_pod_has_the_secrets_of_compose_and_redis_and_no_other(name: str) -> None:
    wanted = {*COMPOSE["services"][name]["secrets"], "docv_redis_url"}
    mounted = secrets(name)
    assert mounted.keys() == wanted
    assert {setting.upper() for setting in mounted} <= KNOWN
    assert all(key == setting for setting, (_, key) in mounted.items())


def test_the_kustomization_shows_how_to_create_every_secret() -> None:
    text = (FOLDER / "base" / "kustomization.yaml").read_text("utf-8")
    shown = {
        (secret, key)
        for secret, files in re.findall(r"create secret generic (\S+)((?: --from-file=\w+)+)", text)
        for key in re.findall(r"--from-file=(\w+)", files)
    }
    assert shown == {each for name in PODS for each in secrets(name).values()}


def test_the_variables_of_pods_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, value in SETTINGS.items():
        monkeypatch.setenv(setting, value)
    assert load_settings().archive_url.startswith("s3://")
    assert not SETTINGS.keys() & {key.upper() for name in PODS for key in secrets(name)}


@every_deployment
def test_kubernetes_adds_no_variable_that_looks_like_a_setting(name: str) -> None:
    # A Service docv-archive-serve would set DOCV_ARCHIVE_SERVE_PORT, and an unknown DOCV_ name is refused at start.
    assert PODS[name]["enableServiceLinks"] is False


# --- network policies


def test_workers_accept_no_connections_and_connect_only_to_dns_redis_and_tls() -> None:
    policy = of_kind("NetworkPolicy")["docv-archive"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels("live").items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    out = {(port["protocol"], port["port"]) for rule in policy["egress"] for port in rule["ports"]}
    assert out == {("UDP", 53), ("TCP", 53), ("TCP", 6379), ("TCP", 443)}


def test_serve_accepts_connections_only_from_labelled_namespaces() -> None:
    policy = of_kind("NetworkPolicy")["serve"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels("serve")
    (rule,) = policy["ingress"]
    (source,) = rule["from"]
    assert source["namespaceSelector"]["matchLabels"]
    assert [port["port"] for port in rule["ports"]] == [container("serve")["ports"][0]["name"]]


# --- KEDA


@every_worker
def test_keda_reads_the_list_that_celery_fills(name: str) -> None:
    scaled = of_kind("ScaledObject", KEDA)[name]["spec"]
    assert scaled["scaleTargetRef"]["name"] == DEPLOYMENTS[name]["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    assert trigger["type"] == "redis"
    assert trigger["metadata"]["listName"] == KEY_PREFIX + name
    assert trigger["authenticationRef"]["name"] in of_kind("TriggerAuthentication", KEDA)


@every_worker
def test_keda_starts_only_as_many_workers_as_the_rate_keeps_busy(name: str) -> None:
    rate = float(SETTINGS.get("DOCV_RATE", Settings.model_fields["rate"].default))
    in_flight = int(SETTINGS.get("DOCV_CONCURRENCY", Settings.model_fields["concurrency"].default))
    slow_evaluation = 10
    scaled = of_kind("ScaledObject", KEDA)[name]["spec"]
    assert scaled["maxReplicaCount"] == math.ceil(rate * slow_evaluation / in_flight)
    # A worker feeds a backfill's queue from its list: without workers, the queue stays empty and none would start.
    assert scaled["minReplicaCount"] >= 1


# --- nightly checks


@pytest.mark.parametrize("name", ["verify", "audit", "erase", "retention"])
def test_a_nightly_check_runs_once_in_a_pod_like_the_others(name: str) -> None:
    plan = of_kind("CronJob", NIGHTLY)[name]["spec"]
    pod = plan["jobTemplate"]["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    parse(only["args"])
    assert only["args"][0] == name
    assert only["image"] == f"{PROJECT['name']}:{PROJECT['version']}"
    assert only["envFrom"] == container("live")["envFrom"]
    assert pod["securityContext"] == PODS["live"]["securityContext"]
    assert only["securityContext"] == container("live")["securityContext"]
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert (plan["concurrencyPolicy"], pod["restartPolicy"]) == ("Forbid", "Never")
    assert plan["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert plan["jobTemplate"]["spec"]["template"]["metadata"]["labels"] == labels(name)
    mounted = {each["subPath"] for each in only["volumeMounts"] if each["mountPath"].startswith("/run/secrets/")}
    assert mounted == {"docv_redis_url"}
    written = {each["mountPath"] for each in only["volumeMounts"] if "readOnly" not in each}
    assert written == {*instructions("VOLUME"), "/tmp"}  # noqa: S108  # in the container


def test_every_pod_mounts_an_optional_schedule_and_the_retention_job_is_suspended() -> None:
    jobs = of_kind("CronJob", NIGHTLY)
    pods = [*PODS.values(), *(each["spec"]["jobTemplate"]["spec"]["template"]["spec"] for each in jobs.values())]
    for pod in pods:
        mount = {"name": "schedule", "mountPath": "/etc/docv-archive", "readOnly": True}
        assert mount in pod["containers"][0]["volumeMounts"]
        assert {"name": "schedule", "configMap": {"name": "docv-archive-retention", "optional": True}} in pod["volumes"]
    assert jobs["retention"]["spec"]["suspend"] is True


def test_the_kustomization_shows_how_to_give_a_schedule_to_every_pod() -> None:
    text = (FOLDER / "base" / "kustomization.yaml").read_text("utf-8")
    shown = re.findall(r"(?m)^# {3}(configMapGenerator:\n(?:# {3}.*\n)+)", text)
    schedule, settings = yaml.safe_load(re.sub(r"(?m)^# {3}", "", shown[0]))["configMapGenerator"]
    assert (schedule["name"], schedule["files"]) == ("docv-archive-retention", ["retention.toml"])
    assert (settings["name"], settings["literals"]) == (
        PLAN["configMapGenerator"][0]["name"],
        ["DOCV_RETENTION=/etc/docv-archive/retention.toml"],
    )


def test_each_job_has_the_rights_of_its_role() -> None:
    jobs = of_kind("CronJob", NIGHTLY)
    accounts = {name: each["spec"]["jobTemplate"]["spec"]["template"]["spec"] for name, each in jobs.items()}
    assert {name: pod["serviceAccountName"] for name, pod in accounts.items()} == {
        "verify": "docv-archive-auditor",
        "audit": "docv-archive",
        "erase": "docv-archive-eraser",
        "retention": "docv-archive-eraser",
    }
    assert {"auditor", "eraser"} <= of_kind("ServiceAccount", NIGHTLY).keys()


# --- Ingress and monitoring


def test_the_ingress_forwards_only_the_routes_for_outside_programs() -> None:
    (found,) = INGRESS
    assert found["spec"]["tls"][0]["hosts"] == [rule["host"] for rule in found["spec"]["rules"]]
    (rule,) = found["spec"]["rules"]
    assert [path["path"] for path in rule["http"]["paths"]] == ["/webhooks/riskos", "/evaluations"]
    (service,) = of_kind("Service").values()
    for path in rule["http"]["paths"]:
        backend = path["backend"]["service"]
        assert backend["name"] == service["metadata"]["name"]
        assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}


def test_every_pod_with_metrics_is_scraped_once_at_an_existing_port() -> None:
    monitors = of_kind("PodMonitor", MONITORING)
    scraped = [(name, monitor) for name in PODS for monitor in monitors if selects(monitors[monitor], labels(name))]
    assert scraped == [("live", "workers"), ("backfill", "workers"), ("serve", "serve")]
    for name, monitor in scraped:
        (endpoint,) = monitors[monitor]["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in {port["name"] for port in container(name)["ports"]}
        assert ("authorization" in endpoint) == (name == "serve")


def selects(monitor: Object, pod_labels: dict[str, str]) -> bool:
    selector = monitor["spec"]["selector"]
    expressions = selector.get("matchExpressions", ())
    return selector["matchLabels"].items() <= pod_labels.items() and all(
        each["operator"] == "In" and pod_labels[each["key"]] in each["values"] for each in expressions
    )
