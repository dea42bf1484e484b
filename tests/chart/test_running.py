"""The real server with what the chart renders: it starts, is probed, and takes new apps as a kubelet brings them."""

import json
import shutil
import urllib.request

import pytest

import test_monitoring
from chart import NEW, OLD, render
from processes import doctor, redis, serve, until


def app_of(release) -> tuple[str, str, str]:
    secrets = {key: value for (_, key), value in release.secrets().items()}
    return secrets["app-id"], secrets["app-key"], secrets["app-secret"]


@pytest.mark.parametrize("kubernetes", [OLD, NEW])
def test_the_defaults_start_and_their_probes_answer(kubernetes, tmp_path):
    release = render("ci/minimal.yaml", kubernetes, shutdown__delaySeconds="1")
    with serve(release, tmp_path) as server:
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
            assert server.probe(release.server[probe]) == 200
        assert server.channels(*app_of(release)) == 200


def test_many_apps_with_odd_secrets_are_served(tmp_path):
    release = render("ci/cluster-redis.yaml", redis__tls='{"existingSecret": ""}', redis__url='""', replicaCount="1",
                     config__redis="{}")  # fmt: skip
    with serve(release, tmp_path) as server:
        # The newest pair is what backends are given.
        assert app_of(release)[1] == "shop-key"
        assert server.channels(*app_of(release)) == 200
        assert server.channels("1", "shop-key-old", "s3cret-of-the-old-key") == 200
        assert server.channels("2", "chat-key", "s3cret-of-chat") == 200
        assert server.channels("2", "chat-key", "wrong") == 401


def test_helm_test_finds_a_release_well(tmp_path):
    release = render("ci/minimal.yaml")
    with serve(release, tmp_path) as server:
        found = doctor(release, server, "--hold-s", "1")
    assert found["ok"], found
    assert all(check["status"] in {"ok", "warning", "skipped"} for check in found["checks"]), found


def test_new_apps_are_served_as_soon_as_the_kubelet_brings_them(tmp_path):
    before, after = render(), render(apps__list='[{"id": "9", "keys": [{"key": "k9", "secret": "s9"}]}]')
    with serve(before, tmp_path) as server:
        # A kubelet changes all files of a volume at once, by renaming a link to the directory that has them.
        volume = tmp_path / "etc/fanfare"
        swap(volume, "first", {path.name: path.read_text() for path in volume.iterdir()})
        assert server.channels("9", "k9", "s9") != 200
        apps = after.secrets()["demo-fanfare-chart-apps", "apps.toml"]
        swap(volume, "second", {"fanfare.toml": (volume / "fanfare.toml").read_text(), "apps.toml": apps})
        until(lambda: server.channels("9", "k9", "s9") == 200, "the new app is served")
        assert server.channels(*app_of(before)) != 200


def swap(volume, name: str, texts: dict[str, str]):
    """Brings files into a volume as a kubelet does."""
    (volume / name).mkdir()
    for file, text in texts.items():
        (volume / name / file).write_text(text)
        if not (volume / file).is_symlink():
            (volume / file).unlink()
            (volume / file).symlink_to(f"..data/{file}")
    (volume / "..data_new").symlink_to(name)
    (volume / "..data_new").rename(volume / "..data")


@pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server on this machine")
def test_the_password_of_redis_comes_from_a_secret_of_its_own(tmp_path):
    with redis("s3cret-of-redis", tmp_path) as port:
        url = json.dumps(f"redis://:$(REDIS_URL_PASSWORD)@127.0.0.1:{port}")
        release = render(redis__url=url, redis__passwordSecret='"valkey"', replicaCount="2")
        existing = {("valkey", "password"): "s3cret-of-redis"}
        (tmp_path / "node").mkdir()
        with serve(release, tmp_path / "node", existing) as server:
            until(lambda: server.probe(release.server["readinessProbe"]) == 200, "the node has reached Redis")


def test_metrics_that_alerts_ask_for_are_on_the_page(tmp_path):
    wanted = {name for rule in test_monitoring.rules() for name, _ in test_monitoring.selectors(rule["expr"])}
    with serve(render(), tmp_path) as server:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics") as answer:
            page = answer.read().decode()
    assert not [name for name in wanted - test_monitoring.OWN if f"\n{name}{{" not in page and f"\n{name} " not in page]
