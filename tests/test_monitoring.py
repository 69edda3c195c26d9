"""What watches the workers, held against what they show: alert rules, dashboard, the page of figures."""

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

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RULES: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
TESTS = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text("utf-8"))["tests"]
CONFIG = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
DASHBOARD = json.loads((GRAFANA / "dashboards" / "docv-archive.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# The parts of docs/operations.md.
RUNBOOKS = {
    *("key-expired", "quota-spent", "redis-lost", "bucket-refused", "stuck-queue", "dead-letters", "live-lag"),
    *("worker-gone", "only-refusals"),
}
OUR_FIGURES = described()

every_alert = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
every_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def shown() -> set[str]:
    """Every name that a query may use."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    parts = {
        name + part
        for name, (kind, _, _) in OUR_FIGURES.items()
        for part in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    return parts | {sample.name for family in families for sample in family.samples} | {"up"}


def used(query: str) -> set[str]:
    """The names of figures in a query."""
    without_texts = re.sub(r'"[^"]*"', "", query)
    return set(re.findall(r"\b(?:docv|process)_\w+|\bup\b", without_texts))


def labels_used(query: str) -> Iterator[tuple[str, str]]:
    """The labels that a query picks figures by, each with the name of the figure."""
    for name, picked in re.findall(r"\b(docv_\w+)\{([^}]*)\}", query):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", picked):
            yield name, label


def labels_of(name: str) -> set[str]:
    known = OUR_FIGURES.get(name) or OUR_FIGURES[re.sub(r"_(bucket|sum|count)$", "", name)]
    return {*known[1], "le", "job", "instance"}


def promtool(*arguments: str) -> str:
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- alerts


@every_alert
def test_an_alert_looks_at_figures_that_exist(rule: dict[str, Any]) -> None:
    assert used(rule["expr"])
    assert used(rule["expr"]) <= shown()
    assert all(label in labels_of(name) for name, label in labels_used(rule["expr"]))


@every_alert
def test_an_alert_says_what_is_wrong_what_to_do_and_where_to_read_on(rule: dict[str, Any]) -> None:
    told = rule["annotations"]
    assert told["summary"].endswith(".")
    assert told["action"].endswith(".")
    page, _, part = told["runbook"].partition("#")
    assert (page, part in RUNBOOKS) == ("docs/operations.md", True)
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["for"]


@every_alert
def test_an_alert_has_a_test_in_which_it_fires(rule: dict[str, Any]) -> None:
    firing = [sample for test in TESTS for each in test["promql_expr_test"] for sample in each["exp_samples"]]
    assert any(f'alertname="{rule["alert"]}"' in sample["labels"] for sample in firing)


def test_what_the_tests_of_alerts_make_up_exists() -> None:
    series = [series["series"] for test in TESTS for series in test["input_series"]]
    assert {name for each in series for name in used(each)} <= shown()
    assert any(not each["exp_samples"] for test in TESTS for each in test["promql_expr_test"])


def test_names_of_alerts_are_unique() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


@pytest.mark.needs("promtool")
def test_promtool_takes_rules_and_configuration() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "alerts.yml")
    assert "SUCCESS" in promtool("check", "config", "--syntax-only", "prometheus.yml")


@pytest.mark.needs("promtool")
def test_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_prometheus_scrapes_what_compose_starts() -> None:
    assert CONFIG["rule_files"] == ["alerts.yml"]
    targets = {
        (name, found["port"])
        for job in CONFIG["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    listens = {(name, SERVICES[name]["environment"]["DOCV_METRICS_PORT"]) for name in ("live", "backfill")}
    assert targets == listens | {("serve", 8080), ("celery-exporter", 9808)}
    assert {name for name, _ in targets} <= SERVICES.keys()


# -- the dashboard


@every_panel
def test_a_panel_asks_for_figures_that_exist(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert used(target["expr"])
        assert used(target["expr"]) <= shown()
        assert all(label in labels_of(name) for name, label in labels_used(target["expr"]))


@every_panel
def test_a_panel_asks_the_source_that_is_provisioned(panel: dict[str, Any]) -> None:
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text("utf-8"))
    uid = source["datasources"][0]["uid"]
    assert {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])} == {uid}


def test_the_dashboard_has_its_rows_and_no_panel_lies_upon_another() -> None:
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == [
        *("Outcomes and rate", "How long it takes", "Ledger and queues", "Holds and dead letters", "Live lag"),
        "Worker health",
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


def test_grafana_finds_the_dashboard_and_prometheus_where_compose_puts_them() -> None:
    mounted = dict(volume.removesuffix(":ro").split(":") for volume in SERVICES["grafana"]["volumes"])
    assert set(mounted) >= {"./deploy/grafana/provisioning", "./deploy/grafana/dashboards"}
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "docv-archive.yml").read_text("utf-8"))
    folder = mounted["./deploy/grafana/dashboards"]
    assert provider["providers"][0]["options"]["path"] == folder
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (GRAFANA / "dashboards" / Path(home).relative_to(folder)).is_file()


# -- the page


def test_the_page_lists_every_figure_as_it_is_and_no_other() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| `(docv_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), what) for name, kind, labels, what in rows}
    assert told == OUR_FIGURES
    assert len(rows) == len(told)
