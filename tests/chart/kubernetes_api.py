"""As much of a Kubernetes API server as `helm install --dry-run=server` asks: what it is, and the Secrets there are.

With it `lookup` of templates finds something, and NOTES.txt is printed, without a cluster.
"""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
RESOURCES = {
    "v1": [("secrets", "Secret"), ("configmaps", "ConfigMap"), ("services", "Service"), ("pods", "Pod"),
           ("serviceaccounts", "ServiceAccount")],
    "apps/v1": [("deployments", "Deployment")],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget")],
    "autoscaling/v2": [("horizontalpodautoscalers", "HorizontalPodAutoscaler")],
    "networking.k8s.io/v1": [("ingresses", "Ingress"), ("networkpolicies", "NetworkPolicy")],
    "gateway.networking.k8s.io/v1": [("httproutes", "HTTPRoute")],
}  # fmt: skip


def answer(path: str, secrets: dict) -> tuple[int, dict]:
    """The answer to a GET of `path`; `secrets` are those of namespace default by their names."""
    place = path.strip("/")
    if place == "version":
        return 200, VERSION
    if place == "api":
        return 200, {"kind": "APIVersions", "versions": ["v1"]}
    if place == "apis":
        return 200, {"kind": "APIGroupList", "groups": [group(name) for name in RESOURCES if "/" in name]}
    version = place.removeprefix("apis/").removeprefix("api/")
    if version in RESOURCES:
        resources = [
            {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "create", "patch"]}
            for name, kind in RESOURCES[version]
        ]
        return 200, {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    prefix = "api/v1/namespaces/default/secrets/"
    if place.startswith(prefix) and (secret := secrets.get(place.removeprefix(prefix))):
        return 200, secret
    return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


def group(name: str) -> dict:
    group, version = name.split("/")
    known = {"groupVersion": name, "version": version}
    return {"name": group, "versions": [known], "preferredVersion": known}


@contextmanager
def serve(secrets: dict):
    """The URL of such a server, while it runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, document = answer(self.path.partition("?")[0], secrets)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
