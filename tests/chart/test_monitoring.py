"""Alerts and dashboard ask for metrics that are there."""

import json
import re

import promql_parser
import pytest

from chart import CHART, REPOSITORY, render

DOCUMENT = (REPOSITORY / "docs" / "metrics.md").read_text()
# What Prometheus says itself, and what rates and quantiles of a histogram are computed of.
OWN = {"up"}
DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def documented() -> dict[str, set[str]]:
    """The labels of every metric in docs/metrics.md."""
    found = {}
    for name, labels in re.findall(r"^\| `(\w+)` \| \w+ \| ([\w, ]*) ?\|", DOCUMENT, re.MULTILINE):
        found[name] = {label.strip() for label in labels.split(",") if label.strip()}
    return found


def rules() -> list[dict]:
    (group,) = render(metrics__rules__enabled="true").one("PrometheusRule")["spec"]["groups"]
    return group["rules"]


def selectors(expression: str):
    """Name, labels that are asked for, and labels that are summed by, of each metric of an expression."""
    promql_parser.parse(expression)
    for name, matchers in re.findall(r"\b([a-z_]+)\{([^}]*)\}", expression):
        yield name, set(re.findall(r'(\w+)(?:=~|=|!=|!~)"', matchers))


def grouped_by(expression: str) -> set[str]:
    return {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}


def check(expression: str):
    known = documented()
    assert len(known) > 80
    all_labels = {"namespace", "pod"}
    found = list(selectors(expression))
    assert found, expression
    for name, labels in found:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in OWN or base in known, f"docs/metrics.md has no {name}"
        own = known.get(base, set()) | ({"le"} if name.endswith("_bucket") else set())
        assert labels <= own | {"namespace", "pod"}, f"{name} has no label {labels - own}"
        all_labels |= own
    assert grouped_by(expression) <= all_labels, expression


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_and_labels_that_are_documented(rule):
    check(rule["expr"])
    for text in rule["annotations"].values():
        for label in re.findall(r"\$labels\.(\w+)", text):
            assert label in grouped_by(rule["expr"]) or "by (" not in rule["expr"], f"{label} is summed away"
    assert rule["annotations"]["summary"]
    assert rule["labels"]["severity"] in {"critical", "warning"}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_metrics_and_labels_that_are_documented(panel):
    assert panel["targets"]
    for target in panel["targets"]:
        check(target["expr"].replace("$__rate_interval", "5m"))
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert label in grouped_by(target["expr"]) | {"pod"}, target["legendFormat"]


def test_every_advice_on_alerts_has_one():
    advice = DOCUMENT.partition("## What to alert on")[2].partition("## Every metric")[0]
    wanted = set(re.findall(r"\b((?:fanfare|process)_\w+)", "\n".join(re.findall(r"^\| (.*?) \|", advice, re.MULTILINE))))
    asked = {name for rule in rules() for name, _ in selectors(rule["expr"])}
    assert len(wanted) > 15
    assert wanted <= asked, wanted - asked


def test_alerts_are_of_this_release_alone():
    for rule in rules():
        assert rule["expr"].count('namespace="default",pod=~"demo-fanfare-') == len(list(selectors(rule["expr"])))


def test_alerts_can_be_left_out_labelled_and_added():
    (group,) = render("ci/monitoring.yaml").one("PrometheusRule")["spec"]["groups"]
    names = [rule.get("alert") or rule["record"] for rule in group["rules"]]
    assert "FanfareSlowClients" not in names
    assert names[-1] == "fanfare:connections"
    assert all(rule["labels"]["team"] == "realtime" for rule in group["rules"][:-1])


def test_a_runbook_is_a_section_of_our_documents():
    for rule in rules():
        path, _, section = rule["annotations"]["runbook_url"].partition("/blob/main/")[2].partition("#")
        headings = re.findall(r"^#+ (.*)$", (REPOSITORY / path).read_text(), re.MULTILINE)
        assert section in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_runbook_has_its_alert():
    operate = (REPOSITORY / "docs" / "operate.md").read_text()
    runbooks = set(re.findall(r"^### (Fanfare\w+)$", operate, re.MULTILINE))
    assert runbooks
    assert runbooks <= {rule["alert"] for rule in rules()}


def test_panels_of_the_dashboard_do_not_overlap():
    taken = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} and {taken[x, y]}"
                assert x < 24
                taken[x, y] = panel["title"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))


def test_the_configmap_has_the_dashboard_as_it_is():
    (dashboard,) = [item for item in render("ci/monitoring.yaml").all("ConfigMap") if "fanfare.json" in item["data"]]
    assert json.loads(dashboard["data"]["fanfare.json"]) == DASHBOARD
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["metadata"]["annotations"] == {"grafana_folder": "Realtime"}
