"""Images and containers, with buildah, podman and runc, in a storage of our own.

`--network none` gives each container a network of its own with nothing in it but the loopback, so that the ports of the
image can be used as they are; `inside` makes sockets in there.
"""

import contextlib
import ctypes
import datetime
import json
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ["FANFARE_BIN"])
COLLECT = REPOSITORY / "config/image/collect"
IMAGE = "localhost/fanfare:packed"

MEMORY_BYTES = 64 * 1024 * 1024
FILES_MAX = min(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
PROCESSES_MAX = 1024

# What anybody is advised to take away from a container, and takes away here in every test.
LOCKED = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"]
# The usual limits of podman are more than a machine without the right to raise them has.
LIMITS = [f"--ulimit=nofile=1024:{FILES_MAX}", f"--ulimit=nproc={PROCESSES_MAX}:{PROCESSES_MAX}"]

# Health checks are asked for by the tests; without this podman wants systemd to do that.
os.environ["DISABLE_HC_SYSTEMD"] = "true"

work = None
# Why no container can be run here, and why none can be given a limit of memory.
problem = None
memory_problem = None


def run(*command, check=True, timeout=120):
    """Runs a command to its end."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def _storage():
    return ["--storage-driver=vfs", f"--root={work}/storage", f"--runroot={work}/run"]


def podman(*command, **options):
    """Runs one command of podman."""
    plain = ["--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=runc"]
    return run("podman", *_storage(), *plain, *command, **options)


def build(tag, context, *options, file=REPOSITORY / "Dockerfile"):
    """Builds an image: the last stage of the Dockerfile if `options` name none."""
    plain = ["--isolation=chroot", "--format=docker", "--layers=false"]
    run("buildah", *_storage(), "bud", *plain, "--file", file, "--tag", tag, *options, context)


def arguments():
    """What a release tells the Dockerfile."""
    version = run(BINARY, "--version").stdout.split()[1]
    return [f"--build-arg=VERSION={version}", "--build-arg=REVISION=abc123"]


@contextlib.contextmanager
def opened():
    """A storage with the image of the built binary in it."""
    global work
    # Not in the target directory: sockets' paths must be short.
    work = Path(tempfile.mkdtemp(prefix="fanfare-image-"))
    try:
        run(COLLECT, BINARY, work / "collected")
        build(IMAGE, work / "collected", "--target=packed", *arguments())
        _try_out()
        yield
    finally:
        podman("rm", "--all", "--force", "--time=0", check=False)
        podman("volume", "rm", "--all", "--force", check=False)
        shutil.rmtree(work)


def _try_out():
    """Finds out what this machine can do."""
    global problem, memory_problem
    first = podman("run", "--rm", *_options(memory=True), IMAGE, "--version", check=False)
    if first.returncode == 0:
        return
    done = podman("run", "--rm", *_options(memory=False), IMAGE, "--version", check=False)
    if done.returncode == 0:
        memory_problem = f"no limit of memory can be set on this machine: {_line(first)}"
    else:
        problem = f"no container can be run on this machine: {_line(done)}"


def _line(done):
    return " ".join((done.stdout + done.stderr).split())


def _options(memory):
    return [*LOCKED, *LIMITS, "--network=none", *([f"--memory={MEMORY_BYTES}"] if memory else [])]


def inspect(image):
    """What the image says of itself."""
    return json.loads(podman("image", "inspect", image).stdout)[0]


def once(*command, options=()):
    """Runs a command of the image in a container that ends with it."""
    return podman("run", "--rm", *_options(not memory_problem), *options, IMAGE, *command, check=False)


APP = {"FANFARE_APP_ID": "1", "FANFARE_APP_KEY": "key", "FANFARE_APP_SECRET": "secret"}


class Container:
    """A running server."""

    def __init__(self, environment=None, options=(), app=None):
        variables = (APP if app is None else app) | (environment or {})
        settings = [f"--env={name}={value}" for name, value in variables.items()]
        started = podman("run", "--detach", *_options(not memory_problem), *settings, *options, IMAGE)
        self.id = started.stdout.strip()
        self.pid = int(self.state("{{.State.Pid}}"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        podman("rm", "--force", "--time=0", self.id)

    def state(self, template):
        """One value of what podman knows of it."""
        return podman("inspect", "--format", template, self.id).stdout.strip()

    def execute(self, *command):
        """Runs the binary in it once more."""
        return podman("exec", self.id, "/usr/bin/fanfare", *command, check=False)

    def signal(self, name):
        """Sends a signal to its first process."""
        podman("kill", "--signal", name, self.id)

    def ended(self):
        """Waits for the end, and gives the exit code."""
        return int(podman("wait", self.id, timeout=60).stdout)

    def logs(self):
        """All it has said."""
        said = podman("logs", self.id)
        return said.stdout + said.stderr

    def listening_after_ms(self):
        """From the start of its process, which the kernel knows to 10 ms, to the line of the log."""
        line = next(line for line in self.logs().splitlines() if "listening clients=" in line)
        began = int(self.process("stat").rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
        since_boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        listening = datetime.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()
        return round(1000 * (listening - since_boot - began))

    def process(self, name):
        """A file of its first process in /proc, as seen from outside."""
        return Path(f"/proc/{self.pid}/{name}").read_text()

    def inside(self, make):
        """What `make` gives, called in the container's network. Sockets stay where they were made."""
        made = []

        def enter():
            with open(f"/proc/{self.pid}/ns/net") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            try:
                made.append((make(), None))
            except OSError as error:
                made.append((None, error))

        # A thread is enough, and is thrown away with its network.
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        value, error = made[0]
        if error:
            raise error
        return value

    def connect(self, port=6001):
        """A connection to one of its ports."""
        return self.inside(lambda: socket.create_connection(("127.0.0.1", port), timeout=10))

    def get(self, path, port=9601):
        """Status of a GET."""
        return int(self._answer(path, port).split(maxsplit=2)[1])

    def figure(self, name):
        """One figure of the metrics."""
        lines = self._answer("/metrics", 9601).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def _answer(self, path, port):
        with self.connect(port) as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: fanfare\r\nConnection: close\r\n\r\n".encode())
            return stream.makefile("rb").read().decode()

    def ready(self):
        """Waits until it takes clients."""
        eventually(lambda: self.get("/ready") == 200, lambda: f"it is not ready:\n{self.logs()}")
        return self


def eventually(condition, otherwise, within_s=15):
    """Waits for a condition; an OSError is one that is not met yet."""
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise AssertionError(otherwise() if callable(otherwise) else otherwise)
        time.sleep(0.005)
