"""What the pages take for granted: a host with a certificate, files they speak of, clients and backends."""

import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys

import pusher
import pusher.requests
import websocket

import server
from blocks import REPOSITORY

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = pathlib.Path(os.environ["TOOLS"])
NODE_MODULES = REPOSITORY / "tests/clients/node/node_modules"
AUTHORITIES = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")

#: Names that the pages use for machines: all of them are this one.
NAMES = ["fanfare.example.com", "ws-eu.example.com", "ws-eu.pusher.com", "app.example.com", "redis.internal", "redis"]

VERSION = re.search(r'^version = "(.+)"', (REPOSITORY / "Cargo.toml").read_text(), flags=re.M)[1]

#: The app of the pages.
APP = """
[[apps]]
id = "1"
keys = [{ key = "your-key", secret = "your-secret" }]
"""

#: The token of the pages for the admin API.
TOKEN = "2b1c9c5f0c7d4e5f8a6b7c8d9e0f1a2b"


class World:
    """This machine as the pages see it. It is made once, inside namespaces of its own."""

    def __init__(self, root):
        self.root = root
        self.folders = {}
        os.environ.update(WORLD=str(root), REQUESTS_CA_BUNDLE=str(AUTHORITIES))
        raise_loopback()
        with open("/etc/hosts", "a", encoding="utf-8") as hosts:
            hosts.write(f"\n127.0.0.1 {' '.join(NAMES)}\n")
        (root / "home").mkdir()
        os.environ["BROKER"] = os.environ["FANFARE_BIN"]
        self.make_certificates()
        self.make_programs()

    def make_certificates(self):
        """An authority that this machine trusts, and a certificate for its names where the pages expect one."""
        folder = pathlib.Path("/etc/fanfare")
        folder.mkdir(exist_ok=True)
        authority, key = self.root / "ca.pem", self.root / "ca.key"
        names = ",".join(f"DNS:{name}" for name in NAMES)
        new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=fanfare.example.com"]
        quietly([*new, "-x509", "-days", "2", "-keyout", key, "-out", authority])
        quietly([*new, "-x509", "-days", "2", "-CA", authority, "-CAkey", key, "-addext", f"subjectAltName={names}",
                 "-addext", "basicConstraints=critical,CA:FALSE",
                 "-keyout", folder / "key.pem", "-out", folder / "cert.pem"])
        (folder / "redis-ca.pem").write_bytes(authority.read_bytes())
        (folder / "haproxy.pem").write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
        with open(AUTHORITIES, "ab") as authorities:
            authorities.write(b"\n" + authority.read_bytes())
        # The Python SDK believes none but those that it has in it.
        pusher.requests.CERT_PATH = str(AUTHORITIES)
        if shutil.which("keytool"):
            quietly(["keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", authority,
                     "-keystore", self.root / "trust.p12", "-storepass", "changeit"])

    def make_programs(self):
        """Programs of the pages that are not as on a user's machine: see the folder bin."""
        programs = self.root / "bin"
        programs.mkdir()
        for source in (HERE / "bin").iterdir():
            program = programs / source.name
            program.write_text(f"#!/bin/sh\nPYTHONPATH={HERE} exec {sys.executable} {source} \"$@\"\n")
            program.chmod(0o755)

    def folder(self, page):
        """Where the blocks of a page run, one after the other, with the files that it speaks of."""
        if page not in self.folders:
            folder = self.root / "pages" / str(page.relative_to(REPOSITORY)).replace("/", "-")
            folder.mkdir(parents=True)
            fixtures = HERE / "fixtures" / page.relative_to(REPOSITORY).with_suffix("")
            if fixtures.is_dir():
                shutil.copytree(fixtures, folder, dirs_exist_ok=True)
            else:
                shutil.copy(HERE / "fixtures/fanfare.toml", folder)
            (folder / "node_modules").symlink_to(NODE_MODULES)
            (folder / "package.json").write_text('{ "type": "module" }')
            for name in ("charts", "config"):
                if (REPOSITORY / name).exists():
                    shutil.copytree(REPOSITORY / name, folder / name)
            # All suites, which this one is one of, are not run again.
            (folder / "tests").mkdir()
            (folder / "tests/run").write_text(f'#!/bin/sh\nexec {REPOSITORY}/tests/run --help "$@"\n')
            (folder / "tests/run").chmod(0o755)
            if page.name == "install.md":
                self.make_archive(folder)
            self.folders[page] = folder
        return self.folders[page]

    def make_archive(self, folder):
        """What one downloads of a release, as far as the page goes into it."""
        name = f"fanfare-{VERSION}-linux-amd64"
        inside = folder / "archive" / name
        inside.mkdir(parents=True)
        (inside / "fanfare").symlink_to(os.environ["FANFARE_BIN"])
        quietly(["tar", "-czhf", folder / f"{name}.tar.gz", "-C", folder / "archive", name])
        with open(folder / "SHA256SUMS", "w", encoding="ascii") as sums:
            subprocess.run(["sha256sum", f"{name}.tar.gz"], cwd=folder, stdout=sums, check=True)

    def environment(self, **more):
        """The environment of blocks: nothing of ours but what is needed to find programs and to trust the authority."""
        kept = ("TOOLS", "WORLD", "LANG", "GOPATH", "GOCACHE", "GOMODCACHE", "JAVA_HOME")
        return {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.root / "home"),
            # Not by its usual name, which begins as our settings do.
            "BROKER": os.environ["FANFARE_BIN"],
            "NODE_EXTRA_CA_CERTS": str(self.root / "ca.pem"),
            "REQUESTS_CA_BUNDLE": str(AUTHORITIES),
            "SSL_CERT_FILE": str(AUTHORITIES),
            "GOPROXY": "off",
            "TOKEN": TOKEN,
            **{name: os.environ[name] for name in kept if name in os.environ},
            **more,
        }

    def serve(self, config, folder=None):
        """A server with this configuration file, in place of the one before."""
        code = server.start(["serve", "--config", str(config)], self.environment(), folder or self.root)
        assert code == 0, f"the server ended with {code}"

    def serve_pages(self):
        """The server that snippets connect to: the demo app without TLS, and an app on fanfare.example.com with it."""
        self.serve(HERE / "fixtures/fanfare.toml")


def quietly(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def raise_loopback():
    """A new network has a loopback device that is down."""
    import fcntl
    import struct

    up_and_running = struct.pack("16sh14x", b"lo", 0x1 | 0x40)
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, up_and_running)  # SIOCSIFFLAGS


class Server:
    """A server as clients and backends find it."""

    def __init__(self, host, port, tls, key, secret, app="1"):
        self.host, self.port, self.tls, self.key, self.secret, self.app = host, port, tls, key, secret, app

    def backend(self):
        return pusher.Pusher(app_id=self.app, key=self.key, secret=self.secret, host=self.host, port=self.port,
                             ssl=self.tls, timeout=10)

    def subscriber(self, channel, address="127.0.0.1", prefix=""):
        """A socket that has subscribed to `channel`, coming from `address`, with `prefix` before the path."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10, source_address=(address, 0))
        wire = plain
        if self.tls:
            wire = ssl.create_default_context(cafile=AUTHORITIES).wrap_socket(plain, server_hostname=self.host)
        scheme = "wss" if self.tls else "ws"
        url = f"{scheme}://{self.host}:{self.port}{prefix}/app/{self.key}?protocol=7&client=test&version=1"
        found = websocket.create_connection(url, timeout=10, socket=wire)
        found.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": channel}}))
        await_event(found, "pusher_internal:subscription_succeeded")
        return found

    def occupied(self, channel):
        return self.backend().channel_info(channel)["occupied"]


DEMO = Server("127.0.0.1", 6001, False, "demo-key", "demo-secret")
PUBLIC = Server("fanfare.example.com", 443, True, "your-key", "your-secret")


def await_event(subscriber, name):
    """The data of the next event with this name."""
    while True:
        event = json.loads(subscriber.recv())
        assert event["event"] != "pusher:error", event
        if event["event"] == name:
            return event["data"]
