"""Values that cannot be meant are refused, in words that say where and what would be right."""

import pytest

from chart import CHART, helm

# Values, and what is said of them.
BY_THE_SCHEMA = [
    ({"replicaCount": '"three"'}, "at '/replicaCount': got string, want integer"),
    ({"replicaCount": "-1"}, "at '/replicaCount': minimum: got -1, want 0"),
    ({"replicas": "3"}, "additional properties 'replicas' not allowed"),
    ({"image.tga": '"1"'}, "at '/image': additional properties 'tga' not allowed"),
    ({"image.digest": '"latest"'}, "at '/image/digest': 'latest' does not match pattern"),
    ({"publicUrl": '"ws.example.com"'}, "at '/publicUrl': 'ws.example.com' does not match pattern"),
    ({"bindAddress": '"::"'}, "at '/bindAddress': '::' does not match pattern"),
    ({"config.drain.spred_s": "30"}, "at '/config/drain': additional properties 'spred_s' not allowed"),
    ({"config.drian.spread_s": "30"}, "at '/config': additional properties 'drian' not allowed"),
    ({"config.drain.spread_s": '"30s"'}, "at '/config/drain/spread_s': got string, want integer"),
    ({"config.server.trusted_proxies": '"10.0.0.0/8"'}, "at '/config/server/trusted_proxies': got string, want array"),
    ({"apps.list": '[{"id": "1"}]'}, "at '/apps/list/0': missing property 'keys'"),
    ({"apps.list": '[{"id": 1, "keys": [{"key": "k", "secret": "s"}]}]'}, "at '/apps/list/0/id': got number, want string"),
    ({"apps.list": '[{"id": "1", "keys": [{"key": "k"}]}]'}, "at '/apps/list/0/keys/0': missing property 'secret'"),
    ({"apps.list": '[{"id": "1", "keys": [], "max": 3}]'}, "additional properties 'max' not allowed"),
    ({"redis.url": '"redis.example:6379"'}, "at '/redis/url': 'redis.example:6379' does not match pattern"),
    ({"store.url": '"oracle://db"'}, "at '/store/url': 'oracle://db' does not match pattern"),
    ({"admin.token": '"short"'}, "at '/admin/token': 'short' does not match pattern"),
    ({"service.type": '"ExternalName"'}, "at '/service/type': value must be one of 'ClusterIP', 'NodePort', 'LoadBalancer'"),
    ({"service.port": "70000"}, "at '/service/port': maximum: got 70,000, want 65,535"),
    ({"ingress.enabled": "true"}, "at '/ingress/hosts': minItems: got 0, want 1"),
    ({"ingress.enabled": "true", "ingress.hosts": '["https://ws.example.com"]'}, "at '/ingress/hosts/0'"),
    ({"httpRoute.enabled": "true"}, "at '/httpRoute/parentRefs': minItems: got 0, want 1"),
    ({"podDisruptionBudget.enabled": '"yes"'}, "at '/podDisruptionBudget/enabled': value must be one of"),
    ({"probes.liveness.path": '"/health"'}, "at '/probes/liveness/path': value must be one of '/live', '/ready'"),
    ({"metrics.serviceMonitor.interval": "30"}, "at '/metrics/serviceMonitor/interval': got number, want string"),
    ({"extraEnv": '{"A": "1"}'}, "at '/extraEnv': got object, want array"),
    ({"shutdown.marginSeconds": "0"}, "at '/shutdown/marginSeconds': minimum: got 0, want 5"),
]
TWO = '[{"id": "1", "keys": [{"key": "k", "secret": "s"}]}]'
REDIS = '"redis://redis.example:6379"'
BY_THE_CHART = [
    ({"replicaCount": "2"}, "more than one container takes Redis"),
    ({"autoscaling.enabled": "true"}, "more than one container takes Redis"),
    ({"autoscaling.enabled": "true", "autoscaling.minReplicas": "1"}, "autoscaling takes Redis"),
    (
        {"autoscaling.enabled": "true", "autoscaling.maxReplicas": "1", "redis.url": REDIS},
        "autoscaling.minReplicas is more than autoscaling.maxReplicas",
    ),
    ({"config.server.bind": '"0.0.0.0:80"'}, "config.server.bind is not set here: bindAddress and service.port"),
    ({"config.metrics.bind": '""'}, "config.metrics.bind is not set here: bindAddress and metrics.service.port"),
    ({"config.admin.token": '"a-token-of-16-characters"'}, "config.admin.token is not set here: it is a secret: use admin.token"),
    ({"config.redis.url": REDIS}, "config.redis.url is not set here: it is a secret: use redis.url or redis.existingSecret"),
    ({"config.store.url": '"sqlite:a.db"'}, "config.store.url is not set here: it is a secret"),
    ({"config.store.apps_file": '"/a"'}, "config.store.apps_file is not set here: use apps.list or apps.existingSecret"),
    ({"config.tls.certificate": '"/a"'}, "config.tls.certificate is not set here: use tls.existingSecret"),
    ({"config.webhooks.state_file": '"/a"', "redis.url": REDIS}, "config.webhooks.state_file is for a single node"),
    ({"redis.url": REDIS, "redis.existingSecret": '"a"'}, "redis.url and redis.existingSecret both say the URL"),
    ({"redis.tls.existingSecret": '"a"'}, "do nothing without redis.url or redis.existingSecret"),
    ({"redis.url": REDIS, "redis.passwordSecret": '"a"'}, "redis.passwordSecret and $(REDIS_URL_PASSWORD) in redis.url belong together"),
    ({"redis.url": '"redis://:$(REDIS_URL_PASSWORD)@r"'}, "redis.passwordSecret and $(REDIS_URL_PASSWORD) in redis.url belong together"),
    ({"redis.url": REDIS, "redis.tls.certificateKey": '"a"'}, "redis.tls.certificateKey and redis.tls.privateKeyKey belong together"),
    ({"redis.url": REDIS, "redis.existingSecretSentinelsKey": '"a"'}, "redis.existingSecretSentinelsKey is a key of redis.existingSecret"),
    ({"store.url": '"mysql://db/a"', "store.existingSecret": '"a"'}, "store.url and store.existingSecret both say the URL"),
    ({"apps.list": TWO, "apps.existingSecret": '"a"'}, "apps.list and apps.existingSecret both say the apps"),
    ({"admin.token": '"a-token-of-16-characters"', "admin.existingSecret": '"a"'}, "both say the token"),
    (
        {"metrics.serviceMonitor.enabled": "true", "metrics.podMonitor.enabled": "true"},
        "metrics.serviceMonitor and metrics.podMonitor would read everything twice",
    ),
]


@pytest.mark.parametrize(("values", "message"), BY_THE_SCHEMA + BY_THE_CHART, ids=lambda item: str(item)[:60])
def test_wrong_values_are_refused(values, message):
    arguments = [part for path, value in values.items() for part in ("--set-json", f"{path}={value}")]
    done = helm("template", "demo", str(CHART), *arguments)
    assert done.returncode != 0
    assert message in done.stderr, done.stderr


def test_all_problems_are_told_at_once():
    done = helm("template", "demo", str(CHART), "--set", "replicaCount=2,config.redis.url=redis://r,config.tls.key=k")
    assert done.stderr.count("\n- ") == 3, done.stderr


def test_an_older_kubernetes_is_refused():
    done = helm("template", "demo", str(CHART), "--kube-version", "1.26")
    assert "chart requires kubeVersion: >=1.27.0-0" in done.stderr
