"""Alert rules, dashboard and the page of metrics agree with the metrics of the code."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.counting import described
from tests.test_deploy import expanded
from worker.metrics.shared_metrics import SharedGauge

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RULES: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
TESTS = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text("utf-8"))["tests"]
CONFIG = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
DASHBOARD = json.loads((GRAFANA / "dashboards" / "docv-archive.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RUNBOOK_PAGE = "https://docs.example.com/docv-archive/operations.md"
OPERATOR = ROOT / "deploy" / "kubernetes" / "prometheus-operator"
OUR_METRICS = described()
SHARED = {each.metric_name for each in SharedGauge}

every_alert = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
every_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def queryable_names() -> set[str]:
    """Return every name that a query may use."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    parts = {
        name + part
        for name, (kind, _, _) in OUR_METRICS.items()
        for part in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    return parts | {sample.name for family in families for sample in family.samples} | {"up"}


def metrics_in(query: str) -> set[str]:
    """Return the names of metrics in a query."""
    without_texts = re.sub(r'"[^"]*"', "", query)
    return set(re.findall(r"\b(?:docv|process)_\w+|\bup\b", without_texts))


def labels_used(query: str) -> Iterator[tuple[str, str]]:
    """Return the labels by which a query selects metrics, each with the name of the metric."""
    for name, selectors in re.findall(r"\b(docv_\w+)\{([^}]*)\}", query):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors):
            yield name, label


def labels_of(name: str) -> set[str]:
    known = OUR_METRICS.get(name) or OUR_METRICS[re.sub(r"_(bucket|sum|count)$", "", name)]
    return {*known[1], "le", "job", "instance"}


def promtool(*arguments: str) -> str:
    command = ["promtool", *arguments]
    finished = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


# -- alerts


@every_alert
def test_an_alert_uses_existing_metrics(rule: dict[str, Any]) -> None:
    assert metrics_in(rule["expr"])
    assert metrics_in(rule["expr"]) <= queryable_names()
    assert all(label in labels_of(name) for name, label in labels_used(rule["expr"]))


@every_alert
def test_an_alert_has_a_summary_a_description_and_a_runbook(rule: dict[str, Any]) -> None:
    annotations = rule["annotations"]
    assert annotations["summary"].endswith(".")
    assert annotations["description"].endswith(".")
    assert annotations["action"].endswith(".")
    page, _, anchor = annotations["runbook_url"].partition("#")
    assert page == RUNBOOK_PAGE
    assert anchor
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["for"]


@every_alert
def test_an_alert_has_a_test_in_which_it_fires(rule: dict[str, Any]) -> None:
    firing = [sample for test in TESTS for each in test["promql_expr_test"] for sample in each["exp_samples"]]
    assert any(f'alertname="{rule["alert"]}"' in sample["labels"] for sample in firing)


@every_alert
def test_an_alert_has_a_test_with_its_metrics_in_which_it_does_not_fire(rule: dict[str, Any]) -> None:
    assert any(
        metrics_in(rule["expr"]) <= {name for each in test["input_series"] for name in metrics_in(each["series"])}
        and not any(f'alertname="{rule["alert"]}"' in sample["labels"] for sample in evaluated["exp_samples"])
        for test in TESTS
        for evaluated in test["promql_expr_test"]
    )


def test_the_page_says_how_to_set_the_address_of_the_runbooks() -> None:
    (search,) = re.findall(r"(?m)^#   sed -i 's#(\S+?)#", (PROMETHEUS / "alerts.yml").read_text("utf-8"))
    assert f"{search}/operations.md" == RUNBOOK_PAGE
    assert f"sed -i 's#{search}#" in (ROOT / "docs" / "metrics.md").read_text("utf-8")


def test_the_series_in_tests_of_alerts_exist() -> None:
    series = [series["series"] for test in TESTS for series in test["input_series"]]
    assert {name for each in series for name in metrics_in(each)} <= queryable_names()
    assert any(not each["exp_samples"] for test in TESTS for each in test["promql_expr_test"])


def test_names_of_alerts_are_unique() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


@pytest.mark.needs("promtool")
def test_promtool_accepts_rules_and_configuration() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "alerts.yml")
    assert "SUCCESS" in promtool("check", "config", "--syntax-only", "prometheus.yml")


@pytest.mark.needs("promtool")
def test_alerts_pass_their_promtool_tests() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_prometheus_scrapes_the_services_of_compose() -> None:
    assert CONFIG["rule_files"] == ["alerts.yml"]
    targets = {
        (name, found["port"])
        for job in CONFIG["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    listens = {
        (name, int(expanded(SERVICES[name]["environment"]["DOCV_METRICS_PORT"]))) for name in ("live", "backfill")
    }
    assert targets == listens | {("serve", 8080), ("celery-exporter", 9808)}
    assert {name for name, _ in targets} <= SERVICES.keys()


# -- the Prometheus Operator


def test_the_operator_gets_the_same_rules() -> None:
    rule = yaml.safe_load((OPERATOR / "prometheus-rule.yaml").read_text("utf-8"))
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text("utf-8"))["groups"]
    assert rule["spec"] == {"groups": groups}, "see the first lines of prometheus-rule.yaml"


def test_the_jobs_of_alerts_and_panels_exist_in_a_cluster_too() -> None:
    monitors = list(yaml.safe_load_all((OPERATOR / "pod-monitor.yaml").read_text("utf-8")))
    endpoints = [each for found in monitors for each in found["spec"]["podMetricsEndpoints"]]
    jobs = {each["replacement"] for found in endpoints for each in found["relabelings"] if each["targetLabel"] == "job"}
    assert jobs == {each["job_name"] for each in CONFIG["scrape_configs"]} - {"celery"}
    queries = [rule["expr"] for rule in RULES] + [each["expr"] for panel in PANELS for each in panel["targets"]]
    assert set(re.findall(r'\bjob="([^"]+)"', "".join(queries))) <= jobs


# -- the dashboard


def test_the_dashboard_can_show_one_source_account_or_instance() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert {name: each["type"] for name, each in variables.items()} == {
        "datasource": "datasource",
        "account": "query",
        "instance": "query",
    }
    for name in ("account", "instance"):
        assert variables[name]["includeAll"]
        assert variables[name]["allValue"] == ".*"
        assert metrics_in(variables[name]["definition"]) <= queryable_names()


@every_panel
def test_a_panel_shows_the_selected_account_and_instance(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        for name, selectors in re.findall(
            r"\b((?:docv|process)_\w+)(\{[^}]*\})?", re.sub(r'="[^"$]*"', "", target["expr"])
        ):
            is_ours = name.startswith("docv_")
            assert ('account=~"$account"' in selectors) == (is_ours and "account" in labels_of(name)), name
            assert ('instance=~"$instance"' in selectors) == (name not in SHARED), name


@every_panel
def test_a_panel_uses_existing_metrics(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert metrics_in(target["expr"])
        assert metrics_in(target["expr"]) <= queryable_names()
        assert all(label in labels_of(name) for name, label in labels_used(target["expr"]))


@every_panel
def test_a_panel_queries_the_selected_source(panel: dict[str, Any]) -> None:
    sources = {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])}
    assert sources == {"${datasource}"}


def test_the_dashboard_has_its_rows_and_no_panels_overlap() -> None:
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == [
        *("Outcomes and rate", "Duration", "Ledger and queues", "Holds and dead letters", "Live evaluations"),
        *("Worker health", "serve", "Verification and versions"),
    ]
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_grafana_finds_the_dashboard_where_compose_mounts_it() -> None:
    mounted = dict(volume.removesuffix(":ro").split(":") for volume in SERVICES["grafana"]["volumes"])
    assert set(mounted) >= {"./deploy/grafana/provisioning", "./deploy/grafana/dashboards"}
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "docv-archive.yml").read_text("utf-8"))
    folder = mounted["./deploy/grafana/dashboards"]
    assert provider["providers"][0]["options"]["path"] == folder
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (GRAFANA / "dashboards" / Path(home).relative_to(folder)).is_file()


# -- the page


def test_every_metric_is_in_an_alert_or_a_panel_or_listed_for_exploration() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    queries = [rule["expr"] for rule in RULES] + [each["expr"] for panel in PANELS for each in panel["targets"]]
    watched = {re.sub(r"_(bucket|sum|count)$", "", name) for query in queries for name in metrics_in(query)}
    (listed,) = re.findall(r"(?s)In no alert and no panel, for exploration: (.*?)\.\n", page)
    assert set(re.findall(r"`(docv_\w+)`", listed)) == OUR_METRICS.keys() - watched


def test_the_page_lists_exactly_the_metrics_of_the_code() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| `(docv_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), meaning) for name, kind, labels, meaning in rows}
    assert documented == OUR_METRICS
    assert len(rows) == len(documented)
