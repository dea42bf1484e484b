"""What single values do."""

import base64
import tomllib

import pytest
import yaml

import kubernetes_api
from chart import CASES, CHART, NEW, environment, helm, render

APPS = '[{"id": "3", "keys": [{"key": "k3", "secret": "s3"}]}]'
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo-fanfare-chart-apps", "namespace": "default"}}


def install(secrets: dict, tmp_path, *arguments: str) -> str:
    """What `helm install` says and would make in a cluster with these Secrets."""
    releases = tmp_path / "releases.yaml"
    releases.write_text("[]")
    with kubernetes_api.serve(secrets) as url:
        done = helm(
            "install", "demo", str(CHART), "--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", url,
            *arguments, HELM_DRIVER="memory", HELM_MEMORY_DRIVER_DATA=str(releases),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_random_app_is_kept_by_upgrades(tmp_path):
    kept = SECRET | {"data": {"app-key": base64_of("the-old-key"), "app-secret": base64_of("the-old-secret")}}
    output = install({"demo-fanfare-chart-apps": kept}, tmp_path)
    assert f"app-secret: {base64_of('the-old-secret')}" in output
    assert 'new Pusher("the-old-key"' in output


def test_a_random_app_is_another_one_for_each_release():
    def secret(release):
        return release.secrets()["demo-fanfare-chart-apps", "app-secret"]

    first, second = render(), render(commonLabels='{"other": "one"}')
    assert len(secret(first)) == 32
    assert secret(first) != secret(second)


def test_a_random_token_is_kept_by_upgrades(tmp_path):
    kept = SECRET | {"data": {"admin-token": base64_of("the-old-token-of-admin")}}
    output = install({"demo-fanfare-chart-env": kept}, tmp_path, "--set", "admin.enabled=true")
    assert f"admin-token: {base64_of('the-old-token-of-admin')}" in output


@pytest.mark.parametrize(
    ("case", "snippets"),
    [
        ("ci/minimal.yaml", ['wsHost: "127.0.0.1", wsPort: 6001', "forceTLS: false", "port-forward service/demo-fanfare 6001:6001"]),
        ("ci/ingress-tls.yaml", ['wsHost: "ws.example.com", wsPort: 443', "forceTLS: true", "PUSHER_SCHEME=https"]),
        ("ci/gateway.yaml", ['wsHost: "example.com"', 'wsPath: "/realtime"', "'path' => '/realtime'"]),
        ("ci/autoscaling.yaml", ['wsHost: "ws.example.com", wsPort: 80', "forceTLS: false", "PUSHER_PORT=80"]),
        ("ci/cluster-redis.yaml", ['new Pusher("shop-key"', "PUSHER_APP_KEY=shop-key", "PUSHER_APP_ID=1"]),
        ("ci/external-secrets.yaml", ["get secret fanfare-apps -o jsonpath='{.data.realtime\\.toml}'", "fanfare status"]),
        ("examples/ingress-alb.yaml", ['wsHost: "ws.example.com", wsPort: 443', "forceTLS: true"]),
    ],
)  # fmt: skip
def test_notes_are_for_the_releases_real_host(case, snippets, tmp_path):
    notes = install({}, tmp_path, "--values", str(CHART / case)).partition("\nNOTES:\n")[2]
    for snippet in snippets:
        assert snippet in notes, notes


@pytest.mark.parametrize("case", CASES)
def test_notes_tell_no_secret(case, tmp_path):
    output = install({}, tmp_path, "--values", str(CHART / case))
    manifests, _, notes = output.partition("\nNOTES:\n")
    assert notes
    encoded = [line.split(": ")[1] for line in manifests.splitlines() if line.startswith("  app-secret: ")]
    for secret in [base64.b64decode(value).decode() for value in encoded] + ["s3cret"]:
        assert secret not in notes


def checksums(**values) -> dict:
    return render("ci/cluster-redis.yaml", **values).pod["metadata"]["annotations"]


def test_a_changed_setting_replaces_containers():
    assert checksums(config__drain__spread_s="31") != checksums()


def test_a_changed_url_replaces_containers():
    assert checksums(redis__url='"rediss://other.example"') != checksums()


def test_changed_apps_replace_no_container():
    assert render("ci/cluster-redis.yaml", apps__list=APPS).secrets() != render("ci/cluster-redis.yaml").secrets()
    assert checksums(apps__list=APPS) == checksums()


def test_long_names_are_cut_before_they_are_too_long():
    release = render("ci/monitoring.yaml", name="a" * 53)
    names = [item["metadata"]["name"] for item in release.objects]
    assert max(map(len, names)) <= 63
    assert len(set(names)) > 5


@pytest.mark.parametrize(("kubernetes", "sleeps"), [("1.27", False), ("1.29.9", False), ("1.30.0", True), ("1.30.1-eks-1", True), (NEW, True)])
def test_the_delay_is_a_sleep_where_kubernetes_has_it_and_the_servers_otherwise(kubernetes, sleeps):
    release = render(kubernetes=kubernetes, config__drain__delay_s="3")
    assert ("lifecycle" in release.server) == sleeps
    assert release.config["drain"]["delay_s"] == (3 if sleeps else 13)
    assert release.pod["spec"]["terminationGracePeriodSeconds"] == 10 + 3 + 10 + 5 + 15


def test_without_a_delay_there_is_none():
    release = render(shutdown__delaySeconds="0")
    assert "lifecycle" not in release.server
    assert "drain" not in release.config


def test_apps_of_a_database_alone_take_no_file_and_no_test():
    release = render(store__url='"postgres://u:p@db/apps"')
    assert "store" not in release.config
    assert not release.all("Pod")
    assert "FANFARE_STORE_URL" in environment(release, release.server, {})
    tested = render(store__url='"postgres://u:p@db/apps"', tests__existingSecret='"credentials"')
    assert [item["name"] for item in tested.one("Pod")["spec"]["containers"][0]["env"]] == [
        "FANFARE_APP_ID", "FANFARE_APP_KEY", "FANFARE_APP_SECRET",
    ]  # fmt: skip


def test_containers_that_are_ended_first_do_not_roll():
    assert render(strategy__type='"Recreate"').deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_the_test_of_a_release_leaves_its_volumes_alone():
    release = render("examples/state-file.yaml")
    assert "state" in {volume["name"] for volume in release.pod["spec"]["volumes"]}
    assert [volume["name"] for volume in release.one("Pod")["spec"]["volumes"]] == ["config"]


def test_numbers_are_whole_whatever_their_size():
    text = render(config__server__mailbox_bytes_max="2684354560").settings()["demo-fanfare", "fanfare.toml"]
    assert "mailbox_bytes_max = 2684354560" in text


def test_a_setting_of_null_is_left_out():
    assert "log" not in render(config__log__format="null").config


def test_an_image_is_named_by_version_tag_or_digest():
    digest = "sha256:" + "0" * 64
    assert render().server["image"] == "ghcr.io/fanfare/fanfare:0.1.0"
    assert render(image__tag='"1.2"').server["image"] == "ghcr.io/fanfare/fanfare:1.2"
    assert render(image__digest=f'"{digest}"').server["image"] == f"ghcr.io/fanfare/fanfare@{digest}"
    assert render(image__registry='""', image__tag='"dev"').server["image"] == "fanfare/fanfare:dev"


def test_the_release_is_tested_under_the_name_of_its_certificate():
    def url(**values):
        return render(**values).one("Pod")["spec"]["containers"][0]["args"][2]

    assert url() == "http://demo-fanfare:6001"
    assert url(service__port="80") == "http://demo-fanfare:80"
    assert url(tls__existingSecret='"c"', publicUrl='"https://ws.example.com"') == "https://ws.example.com"


def test_an_autoscaler_looks_at_what_it_is_told():
    def metrics(**values):
        (scaler,) = render("ci/autoscaling.yaml", **values).all("HorizontalPodAutoscaler")
        return [metric.get("resource", metric.get("pods", {}).get("metric"))["name"] for metric in scaler["spec"]["metrics"]]

    assert metrics() == ["cpu", "memory", "fanfare_connections"]
    assert metrics(autoscaling__memoryPercent="0", autoscaling__connections="0") == ["cpu"]


def test_a_packed_chart_renders_the_same(tmp_path):
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (packed,) = tmp_path.glob("fanfare-*.tgz")
    values = ["--values", str(CHART / "ci/monitoring.yaml"), "--set", "admin.token=a-token-of-16-characters"]
    of_package, of_directory = (
        helm("template", "demo", str(chart), *values, "--set-json", f"apps.list={APPS}").stdout for chart in (packed, CHART)
    )
    assert "kind: Deployment" in of_package
    assert of_package == of_directory


def test_the_chart_has_the_version_of_the_server():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    cargo = tomllib.loads((CHART.parents[1] / "Cargo.toml").read_text())
    assert chart["appVersion"] == cargo["package"]["version"]
