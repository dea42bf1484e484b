"""What the chart renders, from the defaults and from each example, for an old and a new Kubernetes."""

import os
import subprocess
import tomllib

import jsonschema
import kubernetes_validate
import pytest

from chart import CASES, CHART, NEW, OLD, Release, environment, files, helm, json_schema, render, write

OF_OTHERS = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "HTTPRoute"}
# Not ours, and not Kubernetes' either.
UNKNOWN = {"ExternalSecret"}
# Values of the Secrets that the examples say are there, beside certificates.
SECRETS = {
    ("fanfare-redis", "url"): "redis://redis.example:6379",
    ("fanfare-redis", "sentinels"): "redis://sentinel.example:26379",
    ("fanfare-database", "uri"): "postgres://user:password@db.example/apps",
    ("fanfare-admin", "token"): "a-token-of-16-characters",
    ("fanfare-apps", "realtime.toml"): '[[apps]]\nid = "7"\nkeys = [{ key = "k", secret = "s3cret" }]\n',
    ("valkey", "valkey-password"): "s3cret",
    ("fanfare-valkey", "password"): "s3cret",
}


@pytest.fixture(scope="session")
def existing(certificate) -> dict[tuple[str, str], str]:
    """What is in the Secrets that the examples say are there."""
    chain, key = certificate
    own = {("inner-tls", "tls.crt"): chain, ("inner-tls", "tls.key"): key}
    of_redis = {("redis-tls", "ca.crt"): chain, ("redis-tls", "tls.crt"): chain, ("redis-tls", "tls.key"): key}
    return SECRETS | own | of_redis


@pytest.fixture(params=[None, *CASES], ids=lambda case: case or "defaults")
def case(request) -> str | None:
    return request.param


@pytest.fixture(params=[OLD, NEW])
def kubernetes(request) -> str:
    return request.param


@pytest.fixture
def release(case, kubernetes) -> Release:
    return render(case, kubernetes)


def test_helm_lint_finds_nothing(case, kubernetes):
    values = ["--values", str(CHART / case)] if case else []
    done = helm("lint", str(CHART), "--strict", "--kube-version", kubernetes, *values)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


def test_kubernetes_knows_every_field(release, kubernetes):
    for item in release.objects:
        if item["kind"] in OF_OTHERS:
            jsonschema.validate(item, json_schema(item["kind"]))
        elif item["kind"] not in UNKNOWN:
            kubernetes_validate.validate(item, kubernetes, strict=True)


def test_every_object_is_named_and_labelled_for_its_release(release):
    names = [(item["kind"], item["metadata"]["name"]) for item in release.objects]
    assert len(names) == len(set(names))
    for item in release.objects:
        labels = item["metadata"].get("labels", {})
        if labels.get("app.kubernetes.io/managed-by") == "Helm":
            assert item["metadata"]["namespace"] == "default"
            assert labels["app.kubernetes.io/instance"] == "demo"
            assert labels["helm.sh/chart"].startswith("fanfare-")


def test_selectors_take_the_servers_pods_and_no_other(release):
    labels = release.pod["metadata"]["labels"]
    others = [item["metadata"]["labels"] for item in release.all("Pod")]
    own = [item for item in release.all("Service") if "app.kubernetes.io/managed-by" in item["metadata"].get("labels", {})]
    assert len(own) == 2
    selectors = [item["spec"]["selector"] for item in own]
    selectors += [item["spec"]["selector"]["matchLabels"] for item in release.all("PodDisruptionBudget")]
    selectors += [item["spec"]["podSelector"]["matchLabels"] for item in release.all("NetworkPolicy")]
    selectors += [item["spec"]["selector"]["matchLabels"] for item in release.all("PodMonitor")]
    selectors += [item["labelSelector"]["matchLabels"] for item in release.pod["spec"]["topologySpreadConstraints"]]
    selectors.append(release.deployment["spec"]["selector"]["matchLabels"])
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= other.items() for other in others)
    for monitor in release.all("ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [item for item in release.all("Service") if selector.items() <= item["metadata"]["labels"].items()]
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_ports_agree_with_the_addresses_of_the_server(release, existing):
    ports = {port["name"]: port["containerPort"] for port in release.server["ports"]}
    binds = environment(release, release.server, existing)
    assert binds["FANFARE_SERVER_BIND"].endswith(f":{ports['clients']}")
    assert binds["FANFARE_METRICS_BIND"].endswith(f":{ports['metrics']}")
    if "admin" in ports:
        assert binds["FANFARE_ADMIN_BIND"].endswith(f":{ports['admin']}")
    elif "FANFARE_ADMIN_BIND" in binds:
        assert binds["FANFARE_ADMIN_BIND"].startswith("127.0.0.1:")
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
        assert release.server[probe]["httpGet"]["port"] == "metrics"
    clients, metrics = release.one("Service", "demo-fanfare"), release.one("Service", "-metrics")
    assert [port["targetPort"] for port in clients["spec"]["ports"]] == ["clients"]
    for service in clients, metrics:
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    for policy in release.all("NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= ports.keys()


def test_ways_in_lead_to_the_service_of_clients(release):
    service = release.one("Service", "demo-fanfare")
    (port,) = service["spec"]["ports"]
    backends = [
        path["backend"]["service"]
        for ingress in release.all("Ingress")
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    assert all(backend == {"name": "demo-fanfare", "port": {"number": port["port"]}} for backend in backends)
    for route in release.all("HTTPRoute"):
        assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "demo-fanfare", "port": port["port"]}]


def test_metrics_and_admin_are_never_outside_of_the_cluster(release):
    assert release.one("Service", "-metrics")["spec"]["type"] == "ClusterIP"


def test_no_secret_is_anywhere_but_in_secrets(release, existing):
    secrets = {
        value
        for (_, key), value in release.secrets().items()
        if key not in {"app-id", "app-key", "apps.toml"}
    }
    secrets |= {pair["secret"] for app in apps_of(release, existing) for pair in app["keys"]} | {"s3cret"}
    for item in release.objects:
        if item["kind"] != "Secret":
            text = str(item)
            assert not [secret for secret in secrets if secret in text], item["metadata"]["name"]


def apps_of(release: Release, existing: dict) -> list[dict]:
    text = files(release, existing).get("/etc/fanfare/apps.toml", "")
    return tomllib.loads(text).get("apps", [])


def test_references_to_the_charts_own_objects_hold(release, existing):
    secrets = release.secrets()
    for pod in [release.pod, *release.all("Pod")]:
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes.keys()
        environment(release, pod["spec"]["containers"][0], existing)
        for volume in volumes.values():
            secret = volume.get("secret", {})
            for item in secret.get("items", []):
                name = secret["secretName"]
                assert (name, item["key"]) in secrets or not name.startswith("demo-fanfare")
        assert pod["spec"]["serviceAccountName"] == (
            "demo-fanfare" if release.all("ServiceAccount") else "default"
        )


def test_the_server_takes_the_rendered_configuration(release, existing, tmp_path):
    config = write(files(release, existing), tmp_path)
    done = subprocess.run(
        [os.environ["FANFARE_BIN"], "config", "check", "--config", str(config)],
        env=environment(release, release.server, existing) | {"FANFARE_CONFIG": str(config)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()


def test_a_node_has_time_to_end(release, kubernetes):
    settings = release.config
    drain = settings.get("drain", {})
    server = drain.get("delay_s", 0) + drain.get("spread_s", 10) + settings.get("server", {}).get("shutdown_timeout_s", 5)
    sleep = release.server.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    # Webhooks take 2 s at least, Redis up to 3.
    assert release.pod["spec"]["terminationGracePeriodSeconds"] >= sleep + server + 5
    assert sleep + drain.get("delay_s", 0) >= 10
    assert bool(sleep) == (kubernetes == NEW)


def test_replicas_are_the_autoscalers_business_if_there_is_one(release):
    scalers = release.all("HorizontalPodAutoscaler")
    assert ("replicas" in release.deployment["spec"]) == (not scalers)
    for scaler in scalers:
        assert scaler["spec"]["scaleTargetRef"]["name"] == release.deployment["metadata"]["name"]
        # A share of a request that nobody makes is never reached.
        resources = {metric["resource"]["name"] for metric in scaler["spec"]["metrics"] if metric["type"] == "Resource"}
        assert resources <= release.server["resources"]["requests"].keys()


def test_a_disruption_budget_is_there_for_more_than_one_container(release):
    scalers = release.all("HorizontalPodAutoscaler")
    fewest = scalers[0]["spec"]["minReplicas"] if scalers else release.deployment["spec"]["replicas"]
    assert bool(release.all("PodDisruptionBudget")) == (fewest > 1)


def test_pods_are_as_the_standard_restricted_wants_them(release):
    others = [item["spec"]["template"] for item in release.all("StatefulSet")]
    for pod in [release.pod, *release.all("Pod"), *others]:
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for container in spec["containers"] + spec.get("initContainers", []):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert not security.get("privileged")
        assert all("hostPath" not in volume for volume in spec.get("volumes", []))


def test_the_test_of_the_release_is_doctor_with_its_credentials(release, existing):
    (pod,) = release.all("Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    assert container["image"] == release.server["image"]
    assert container["args"][:2] == ["doctor", "--url"]
    assert "/etc/fanfare/apps.toml" in files(release, existing)


def test_a_policy_lets_the_server_to_what_it_needs(release, existing):
    variables = environment(release, release.server, existing)
    for policy in release.all("NetworkPolicy"):
        out = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
        assert {53, 443} <= out
        assert bool({6379, 6380} & out) == ("FANFARE_REDIS_URL" in variables)
        assert bool({5432} & out) == ("FANFARE_STORE_URL" in variables)
