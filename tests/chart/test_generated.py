"""What was made from elsewhere is as it would be made now, and documents name what there is."""

import itertools
import re

import pytest

import generated
from chart import CASES, CHART, REPOSITORY, helm

RENEW = "run: FANFARE_BIN=… tests/chart/run --write"


def test_the_schema_knows_every_setting_of_the_server():
    assert generated.SCHEMA.read_text() == generated.schema(), RENEW


def test_the_reference_of_values_is_that_of_the_comments():
    assert generated.README.read_text() == generated.readme(), RENEW


def test_every_value_has_a_meaning():
    assert generated.undocumented() == []


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", generated.README.read_text())
    assert len(links) > 5
    for link in links:
        assert (CHART / link).exists(), link


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("examples/")])
def test_every_example_is_named_by_the_readme(case):
    assert f"({case})" in generated.README.read_text()


def test_values_that_the_readme_names_exist():
    known = {path for path, _ in generated.meanings_of_values()}
    known |= {path.rpartition(".")[0] for path in known}
    text = generated.README.read_text().partition(generated.TABLE_BEGIN)[0]
    named = re.findall(r"`((?:redis|store|apps|tls|admin|shutdown|metrics|autoscaling|probes|networkPolicy|ingress|httpRoute)\.[\w.]+)", text)
    assert len(named) > 15
    # `drain.delay_s` and the like are settings, which the schema knows; file names have a dot too.
    for name in named:
        name = name.removesuffix(".path")
        assert name in known or name in {"apps.toml", "tls.crt", "tls.key"}, name


def test_values_in_the_documents_are_taken(tmp_path):
    install = (REPOSITORY / "docs" / "install.md").read_text().partition("with Helm\n")[2].partition("\n## ")[0]
    readme = generated.README.read_text().partition("## Apps and settings\n")[2].partition("**A change")[0]
    blocks = [re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) for text in (install, readme)]
    assert all(blocks)
    for block in itertools.chain(*blocks):
        (tmp_path / "values.yaml").write_text(block)
        done = helm("template", "fanfare", str(CHART), "--values", str(tmp_path / "values.yaml"))
        assert done.returncode == 0, done.stderr
