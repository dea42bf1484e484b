"""How the image runs: with a root that cannot be written to, no capabilities, no new privileges, and little memory."""

import os
import unittest

import client
import engine
import servers
from engine import Container, eventually, once


def setUpModule():
    if engine.problem:
        raise unittest.SkipTest(engine.problem)


class Locked(unittest.TestCase):
    """One server that several tests look at."""

    @classmethod
    def setUpClass(cls):
        cls.container = Container({"FANFARE_ADMIN_TOKEN": "0123456789abcdef0123456789abcdef"})
        cls.addClassCleanup(cls.container.__exit__)
        cls.container.ready()

    def status(self, name):
        lines = self.container.process("status").splitlines()
        return next(line.split(":", 1)[1].split() for line in lines if line.startswith(f"{name}:"))

    def test_it_has_no_rights(self):
        self.assertEqual(self.status("Uid"), ["65532"] * 4)
        self.assertEqual(self.status("Gid"), ["65532"] * 4)
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(self.status(capabilities)[0], 16), 0, capabilities)
        self.assertEqual(self.status("NoNewPrivs"), ["1"])
        root = next(line.split() for line in self.container.process("mountinfo").splitlines() if line.split()[4] == "/")
        self.assertIn("ro", root[5].split(","))

    def test_it_is_the_first_process_and_the_only_one(self):
        self.assertEqual(self.status("NSpid")[-1], "1")
        processes = self.container.process(f"task/{self.container.pid}/children").split()
        self.assertEqual(processes, [])

    def test_it_serves_within_64_mib(self):
        if engine.memory_problem:
            self.skipTest(engine.memory_problem)
        groups = [line.split(":", 2) for line in self.container.process("cgroup").splitlines()]
        limits = [
            f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"
            if controllers == "memory"
            else f"/sys/fs/cgroup{path}/memory.max"
            for _, controllers, path in groups
            if controllers in ("memory", "")
        ]
        found = [int(open(limit).read()) for limit in limits if os.path.exists(limit)]
        self.assertIn(engine.MEMORY_BYTES, found)
        # It knows, since it takes no more clients when memory gets short.
        self.assertEqual(self.container.figure("fanfare_memory_limit_bytes"), engine.MEMORY_BYTES)
        print(f"{int(self.status('VmRSS')[0]) / 1024:.1f} MiB ", end="")

    def test_it_takes_as_many_open_files_as_it_may(self):
        line = next(line for line in self.container.process("limits").splitlines() if line.startswith("Max open files"))
        self.assertEqual(line.split()[3:5], [str(engine.FILES_MAX)] * 2)

    def test_only_clients_and_metrics_are_served_outside(self):
        lines = self.container.process("net/tcp").splitlines()[1:]
        rows = [line.split() for line in lines]
        listening = {row[1] for row in rows if row[3] == "0A"}
        everywhere, loopback = "00000000", "0100007F"
        self.assertEqual(listening, {f"{everywhere}:1771", f"{everywhere}:2581", f"{loopback}:2582"})
        self.assertEqual(self.container.process("net/tcp6").splitlines()[1:], [])

    def test_it_is_well(self):
        self.assertEqual(self.container.execute("healthcheck").returncode, 0)
        self.assertEqual(engine.podman("healthcheck", "run", self.container.id, check=False).returncode, 0)
        self.assertEqual(self.container.get("/live"), 200)
        self.assertEqual(self.container.get("/metrics"), 200)

    def test_a_publish_arrives(self):
        subscriber = client.Subscriber(self.container.connect(), "key", "my-channel")
        data = {"hello": "world"}
        with self.container.connect() as stream:
            status = client.publish(stream, "1", "key", "secret", "my-channel", "my-event", data)
        self.assertEqual(status, 200)
        self.assertEqual(subscriber.expect("my-event"), data)
        subscriber.close()


class Ends(unittest.TestCase):
    def test_sigterm_sends_clients_away_and_ends_with_0(self):
        with Container().ready() as container:
            subscriber = client.Subscriber(container.connect(), "key", "my-channel")
            container.signal("TERM")
            self.assertEqual(subscriber.expect("pusher:error")["code"], 4200)
            self.assertEqual(subscriber.expect_close(), 4200)
            subscriber.close()
            self.assertEqual(container.ended(), 0)
            self.assertIn("stopped", container.logs().splitlines()[-1])

    def test_sigint_ends_it_with_0_too(self):
        with Container().ready() as container:
            container.signal("INT")
            self.assertEqual(container.ended(), 0)

    def test_a_draining_server_is_alive_but_not_ready(self):
        with Container({"FANFARE_DRAIN_DELAY_S": "60"}).ready() as container:
            container.signal("TERM")
            eventually(lambda: container.get("/ready") == 503, "it stays ready")
            self.assertEqual(container.execute("healthcheck").returncode, 1)
            self.assertEqual(container.execute("healthcheck", "--live").returncode, 0)
            self.assertEqual(engine.podman("healthcheck", "run", container.id, check=False).returncode, 0)


class Starts(unittest.TestCase):
    def test_with_nothing_configured_it_says_what_to_do(self):
        done = once()
        self.assertEqual(done.returncode, 3)
        self.assertIn("FANFARE_APP_KEY and FANFARE_APP_SECRET", done.stderr)

    def test_any_command_can_be_run(self):
        self.assertTrue(once("--version").stdout.startswith("fanfare "))
        self.assertIn("[server]", once("config", "default").stdout)

    def test_it_reads_a_mounted_configuration(self):
        apps = "".join(
            f'[[apps]]\nid = "{number}"\nkeys = [{{ key = "key-{number}", secret = "secret-{number}" }}]\n'
            for number in range(1, 101)
        )
        file = engine.work / "fanfare.toml"
        file.write_text(apps)
        options = [f"--volume={file}:/etc/fanfare/fanfare.toml:ro", "--env=FANFARE_CONFIG=/etc/fanfare/fanfare.toml"]
        done = once("config", "check", options=options)
        self.assertIn("100 app(s)", done.stdout, done.stderr)
        with Container(options=options, app={}).ready() as container:
            print(f"(listening after {container.listening_after_ms()} ms) ", end="")
            client.Subscriber(container.connect(), "key-100", "my-channel").close()

    def test_its_volume_belongs_to_it(self):
        options = ["--volume=state:/var/lib/fanfare", "--env=FANFARE_STORE_URL=sqlite:///var/lib/fanfare/apps.db"]
        made = once("app", "create", "--id=7", options=options)
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertIn("7", once("app", "list", options=options).stdout)

    def test_nothing_else_can_be_written(self):
        for path in ("/etc/fanfare", "/tmp", "/var/lib/fanfare", "/"):
            done = once("app", "create", "--id=7", options=[f"--env=FANFARE_STORE_URL=sqlite://{path}/apps.db"])
            self.assertEqual(done.returncode, 1, path)
            self.assertIn("unable to open database file", done.stderr)


class Network(unittest.TestCase):
    """What it finds in the network, and whom it trusts there."""

    def setUp(self):
        self.files = engine.work / self.id().rsplit(".", 1)[-1]
        self.files.mkdir()

    def mount(self, name, text, path):
        file = self.files / name
        file.write_text(text)
        return f"--volume={file}:{path}:ro"

    def test_names_come_from_the_hosts_file_and_then_from_dns(self):
        hosts = self.mount("hosts", "127.0.0.1 localhost of-hosts.test\n", "/etc/hosts")
        resolver = self.mount(
            "resolv.conf",
            f"nameserver {servers.NameServer.ADDRESS}\noptions timeout:2 attempts:1\n",
            "/etc/resolv.conf",
        )
        with Container(options=[hosts, resolver]).ready() as container:
            dns = servers.NameServer(container)
            for name in ("of-hosts.test", "of-dns.test"):
                done = container.execute("healthcheck", "--url", f"http://{name}:9601")
                self.assertEqual(done.returncode, 0, f"{name}: {done.stderr}")
            self.assertEqual(set(dns.asked), {"of-dns.test"})

    def test_without_redis_it_is_alive_but_not_ready(self):
        with Container({"FANFARE_REDIS_URL": "redis://127.0.0.1:1"}) as container:
            eventually(lambda: container.get("/live") == 200, container.logs)
            self.assertEqual(container.execute("healthcheck").returncode, 1)
            self.assertEqual(container.execute("healthcheck", "--live").returncode, 0)

    def tls(self, certificate, key, *options):
        """How the first connection of a server goes whose Redis has this certificate."""
        environment = {"FANFARE_REDIS_URL": f"rediss://127.0.0.1:{servers.TlsServer.PORT}"}
        with Container(environment, options) as container:
            redis = servers.TlsServer(container, certificate, key)
            eventually(lambda: redis.outcomes, container.logs)
            return redis.outcomes[0]

    def test_the_authorities_of_the_image_are_those_that_are_trusted(self):
        authority, certificate, key = servers.certificate(self.files)
        self.assertEqual(self.tls(certificate, key), "TLSV1_ALERT_UNKNOWN_CA")
        mounted = f"--volume={authority}:/etc/ssl/certs/ca-certificates.crt:ro"
        self.assertIsNone(self.tls(certificate, key, mounted))
