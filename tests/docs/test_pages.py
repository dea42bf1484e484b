"""The pages hang together, and say what the program says."""

import re

import pytest
import yaml

import reference
from blocks import PAGES, REPOSITORY, all_blocks

LINK = re.compile(r"\]\(([^)\s]+)\)")
OPERATE = REPOSITORY / "docs/operate.md"
METRICS = REPOSITORY / "docs/metrics.md"


def links_of(page):
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return LINK.findall(text)


def anchors_of(page):
    """What the headings of a page are called in links, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    for link in links_of(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


def test_the_readme_links_every_page():
    linked = {(REPOSITORY / link.partition("#")[0]).resolve() for link in links_of(REPOSITORY / "README.md")}
    lacking = [page.relative_to(REPOSITORY) for page in PAGES[1:] if page not in linked]
    assert lacking == []


def test_every_setting_is_in_the_reference():
    page = (REPOSITORY / "docs/configure.md").read_text(encoding="utf-8")
    assert page == reference.with_tables(page), "write it anew: tests/docs/reference.py"


def alert_rules():
    """Rules of alerts in the pages, and in the chart as it is written."""
    documents = [yaml.safe_load(block.text) for block in all_blocks() if block.language == "yaml"]
    groups = [group for document in documents if isinstance(document, dict) for group in document.get("groups", [])]
    return [rule for group in groups for rule in group["rules"]]


def test_alerts_ask_for_metrics_that_there_are():
    known = set(re.findall(r"^\| `(\w+)` \|", METRICS.read_text(encoding="utf-8"), flags=re.M)) | {"up"}
    assert len(known) > 50 and alert_rules()
    for rule in alert_rules():
        names = set(re.findall(r"\b(?:up|(?:fanfare|process)_\w+)\b", rule["expr"]))
        names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}
        assert names and names <= known, rule
        assert rule["expr"].count("(") == rule["expr"].count(")"), rule


def test_every_alert_has_a_runbook():
    headings = re.findall(r"^### (Fanfare\w+)$", OPERATE.read_text(encoding="utf-8"), flags=re.M)
    assert headings == [rule["alert"] for rule in alert_rules()]


def test_alerts_of_the_chart_lead_to_their_runbooks():
    chart = yaml.safe_load((REPOSITORY / "charts/fanfare/files/alerts.yaml").read_text(encoding="utf-8"))
    ours = {rule["alert"] for rule in alert_rules()}
    assert ours <= {rule["alert"] for rule in chart}
    for rule in chart:
        path, _, anchor = rule["annotations"]["runbook_url"].removeprefix("@documents@/").partition("#")
        assert anchor in anchors_of(REPOSITORY / "docs" / path), rule["alert"]
        assert rule["alert"] not in ours or anchor == rule["alert"].lower(), rule["alert"]
