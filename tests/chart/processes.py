"""The real server as the chart's container would run it, and a real Redis."""

import hashlib
import hmac
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from chart import Release, environment, files, write

DEADLINE_S = 20


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen, clients: int, metrics: int, root: Path, variables: dict[str, str]):
        self.process, self.clients, self.metrics, self.root, self.variables = process, clients, metrics, root, variables

    def probe(self, probe: dict) -> int:
        """The status that a kubelet's probe would get."""
        return status(f"http://127.0.0.1:{self.metrics}{probe['httpGet']['path']}")

    def channels(self, app: str, key: str, secret: str) -> int:
        """The status of a signed call for an app's channels."""
        path = f"/apps/{app}/channels"
        query = f"auth_key={key}&auth_timestamp={int(time.time())}&auth_version=1.0"
        signature = hmac.new(secret.encode(), f"GET\n{path}\n{query}".encode(), hashlib.sha256).hexdigest()
        return status(f"http://127.0.0.1:{self.clients}{path}?{query}&auth_signature={signature}")


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def until(condition, what: str):
    """Waits until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S} s"
        time.sleep(0.02)


@contextmanager
def serve(release: Release, root: Path, existing: dict | None = None):
    """The server with the files, arguments and environment of its container, at free ports of this machine."""
    config = write(files(release, existing or {}), root)
    anywhere = {"FANFARE_CONFIG": str(config), "FANFARE_SERVER_BIND": "127.0.0.1:0", "FANFARE_METRICS_BIND": "127.0.0.1:0"}
    variables = environment(release, release.server, existing or {}) | anywhere
    process = subprocess.Popen(
        [os.environ["FANFARE_BIN"], *release.server["args"]],
        env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    # Whatever else it says must be read, or it would wait for a reader one day.
    rest = threading.Thread(target=process.stdout.read)
    try:
        clients, metrics = ports(process)
        rest.start()
        yield Server(process, clients, metrics, root, variables)
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        if rest.ident is not None:
            rest.join()
        process.stdout.close()


def ports(process: subprocess.Popen) -> tuple[int, int]:
    """The ports for clients and for metrics, which the server tells when it starts."""
    said, found = "", {}
    for line in process.stdout:
        said += line
        if match := re.search(r"(metrics|listening) on https?://\S+?:(\d+)", line):
            found[match[1]] = int(match[2])
        if len(found) == 2:
            return found["listening"], found["metrics"]
    raise AssertionError(f"the server did not start:\n{said}")


@contextmanager
def redis(password: str, root: Path):
    """The port of a Redis with a password."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--requirepass", password, "--dir", str(root),
         "--save", ""],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: answers(port), "Redis answers")
        yield port
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def doctor(release: Release, server: Server, *arguments: str) -> dict:
    """What the Pod of `helm test` finds at the server."""
    (container,) = release.one("Pod")["spec"]["containers"]
    url = f"http://127.0.0.1:{server.clients}"
    given = [url if argument.startswith("http") else argument for argument in container["args"]]
    done = subprocess.run(
        [os.environ["FANFARE_BIN"], *given, "--json", *arguments],
        env=server.variables, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)
