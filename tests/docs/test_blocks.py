"""Every fenced block of the pages does what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

import server
from blocks import REPOSITORY, all_blocks
from proxies import passes_everything
from server import until
from world import APP, AUTHORITIES, DEMO, PUBLIC, TOOLS, await_event

#: Languages of which nothing can be run here. Each block says why.
NEVER_RUN = {"swift", "dart", "csharp", "elixir", "cpp"}


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in all_blocks()])
def test_block(world, block):
    if block.not_run:
        assert block.language in NEVER_RUN, f"{block.language} can be run here"
        return
    kind = next((name for name in block.options if name in KINDS), block.language)
    assert kind in KINDS, "no test knows what to do with this block"
    KINDS[kind](world, block)


# -- commands


def shell(world, block):
    """Runs the block with bash, as far as it goes; `server` in its comment: a server runs already."""
    folder = world.folder(block.page)
    if "server" in block.options:
        world.serve_pages()
    # What the reader fills in.
    script = block.text.replace("…", "0123456789abcdef")
    done = run(world, ["bash", "-euo", "pipefail", "-c", script], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    if "prints" in block.options:
        wanted = block.options["prints"].replace("_", " ")
        assert wanted in done.stdout + done.stderr + log(), done.stdout + done.stderr


def usage(world, block):
    """A synopsis: the command and each of its flags are known to `--help`."""
    for line in block.text.splitlines():
        words = re.sub(r"[][|]", " ", line.partition("#")[0]).split()
        command = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
        done = run(world, [*command, "--help"], world.folder(block.page))
        assert done.returncode == 0, f"{line}: {done.stderr}"
        for flag in (word for word in words if word.startswith("-")):
            assert re.search(rf"{flag}\b", done.stdout), f"{line}: no {flag}"


def dockerfile(world, block):
    """The command of a HEALTHCHECK finds a server well."""
    command = json.loads(block.text.split("CMD", 1)[1])
    assert command[0] == "/usr/bin/fanfare", command
    world.serve(world.folder(block.page) / "fanfare.toml")
    config = str(world.folder(block.page) / "fanfare.toml")
    done = run(world, ["fanfare", *command[1:]], world.root, FANFARE_CONFIG=config)
    assert done.returncode == 0, done.stderr


# -- files


def toml(world, block):
    """A configuration, or a part of one, that `fanfare config check` finds good."""
    keep(world, block)
    head = APP if block.text.startswith("[[apps.") else ""
    tail = "" if "[[apps" in block.text else APP
    check_configuration(world, block, head + block.text + tail)


def check_configuration(world, block, text):
    tomllib.loads(text)
    path = world.root / "checked.toml"
    path.write_text(text)
    done = run(world, ["fanfare", "config", "check", "--config", str(path)], world.folder(block.page))
    assert done.returncode == 0, done.stdout + done.stderr


def dotenv(world, block):
    """An environment of Laravel's, which `config convert` understands."""
    path = world.root / ".env"
    path.write_text(block.text)
    done = run(world, ["fanfare", "config", "convert", str(path)], world.root)
    assert done.returncode == 0 and "[[apps]]" in done.stdout, done.stdout + done.stderr


def keep(world, block):
    """Writes the block to where its comment says it belongs: `file=PATH`."""
    if "file" in block.options:
        path = world.folder(block.page) / block.options["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)


def any_yaml(world, block):
    keep(world, block)
    assert list(yaml.safe_load_all(block.text))


def compose(world, block):
    """A Compose file: its keys are those of the specification. What it starts is for the shell block that follows."""
    keep(world, block)
    file = yaml.safe_load(block.text)
    assert set(file) <= {"services", "volumes", "networks", "secrets", "configs"}
    for service in file["services"].values():
        assert set(service) <= {"image", "deploy", "environment", "ports", "read_only", "cap_drop", "stop_grace_period",
                                "depends_on", "command", "volumes"}, service


def any_json(world, block):
    keep(world, block)
    json.loads(block.text)


def sysctl(world, block):
    """Settings of the kernel: there are such, and values have their shape."""
    for line in (line for line in block.text.splitlines() if line and not line.startswith("#")):
        name, _, value = (part.strip() for part in line.partition("="))
        path = f"/proc/sys/{name.replace('.', '/')}"
        assert os.path.exists(path), f"no {name}"
        with open(path, encoding="ascii") as now:
            assert len(now.read().split()) == len(value.split()), line


def redis(world, block):
    """A configuration, or a user, with which a redis-server starts and answers."""
    path = world.root / "redis"
    path.mkdir(exist_ok=True)
    user = "redis-user" in block.options
    lines = [f"port 0\nunixsocket {path}/socket\ndir {path}\n", block.text if not user else f"aclfile {path}/users\n"]
    (path / "users").write_text(block.text + "user default on nopass ~* &* +@all\n")
    (path / "redis.conf").write_text("".join(lines))
    with subprocess.Popen(["redis-server", path / "redis.conf"], stdout=subprocess.PIPE, text=True) as process:
        try:
            for _ in until("redis answers"):
                assert process.poll() is None, process.stdout.read()
                if run(world, ["redis-cli", "-s", f"{path}/socket", "ping"], path).stdout == "PONG\n":
                    break
        finally:
            process.terminate()


def proxy(world, block):
    """The configuration of a proxy: it starts, and everything passes it."""
    # No authority is in reach of which Caddy could have a certificate, as it would by itself.
    given = "{\n\ttls /etc/fanfare/cert.pem /etc/fanfare/key.pem\n"
    keep(world, block._replace(text=block.text.replace("{\n", given, 1)) if block.language == "caddy" else block)
    settings = world.folder(block.page) / block.options.get("toml", "behind.toml")
    passes_everything(world, block.options["proxy"], settings.read_text())


# -- snippets


def snippet(world, block):
    """A program: one that subscribes prints an event that is published, and one that publishes is heard."""
    where = DEMO if "demo-key" in block.text else PUBLIC
    world.serve_pages()
    command, environment = LANGUAGES[block.language](world, block)
    environment = world.environment(**environment)
    folder = world.folder(block.page)
    subscribes = "ubscribe(" in block.text
    listener = None if subscribes else where.subscriber("my-channel")
    with open(world.root / "output", "w+b") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=output, start_new_session=True)
        try:
            if subscribes:
                for _ in until("the snippet subscribes"):
                    assert process.poll() is None, said(world)
                    if where.occupied("my-channel"):
                        break
                where.backend().trigger("my-channel", "my-event", {"hello": "world"})
                for _ in until("the snippet prints the event"):
                    if "world" in said(world):
                        break
            else:
                assert process.wait(60) == 0, said(world)
                assert "world" in await_event(listener, "my-event")
        except (AssertionError, subprocess.TimeoutExpired) as error:
            raise AssertionError(f"{error}\n{said(world)}") from error
        finally:
            process.kill()
            process.wait()
            if listener:
                listener.close()


def said(world):
    return (world.root / "output").read_text(errors="replace")


def javascript(world, block):
    """A module; what a page has from a script tag is there without an import."""
    head = "globalThis.window = globalThis;\n"
    if "import" not in block.text:
        package = "pusher-js" if "ubscribe(" in block.text else "pusher"
        head += f'import Pusher from "{package}";\n'
    # The variant for React Native differs in how it asks for the network alone.
    text = block.text.replace("pusher-js/react-native", "pusher-js")
    path = world.folder(block.page) / "snippet.mjs"
    path.write_text(head + text)
    return ["node", str(path)], {}


def python(world, block):
    """The authorities of the Python SDK are its own: ours is none of them."""
    head = f"import pusher.requests\npusher.requests.CERT_PATH = {str(AUTHORITIES)!r}\n"
    wait = "\nimport time\ntime.sleep(60)\n" if "ubscribe(" in block.text else ""
    path = world.folder(block.page) / "snippet.py"
    path.write_text(head + block.text + wait)
    return [sys.executable, "-u", str(path)], {}


def go(world, block):
    """Statements become a program, beside the tests of the Go SDK, whose modules are here."""
    module = world.root / "go"
    module.mkdir(exist_ok=True)
    for name in ("go.mod", "go.sum"):
        shutil.copy(REPOSITORY / "tests/clients/go" / name, module)
    body = "".join(f"\t{line}\n" for line in block.text.splitlines())
    (module / "main.go").write_text(
        'package main\n\nimport "github.com/pusher/pusher-http-go/v5"\n\nfunc main() {\n' + body + "}\n")
    return ["go", "run", "-C", str(module), "-mod=mod", "."], {"GOFLAGS": ""}


def java(world, block):
    """Statements become a program; its imports are those of the two SDKs."""
    path = world.root / "Snippet.java"
    imports = [line for line in block.text.splitlines() if line.startswith("import ")]
    body = [line for line in block.text.splitlines() if line not in imports]
    if "ubscribe(" in block.text:
        body.append("Thread.sleep(60_000);  // The threads of the client keep nothing alive.")
    path.write_text(
        "\n".join(imports) + "\nclass Snippet { public static void main(String[] arguments) throws Exception {\n"
        + "\n".join(body) + "\n} }\n")
    trust = [f"-Djavax.net.ssl.trustStore={world.root}/trust.p12", "-Djavax.net.ssl.trustStorePassword=changeit"]
    return ["java", *trust, "-cp", f"{TOOLS}/docs-jars/*", str(path)], {}


def syntax(*command):
    """A language whose SDK is in no registry at hand: the block is a program of that language."""

    def check(world, block):
        done = subprocess.run(command, input=block.text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return check


def run(world, command, folder, **environment):
    environment = world.environment(**environment)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60,
                          stdin=subprocess.DEVNULL, executable=shutil.which(command[0], path=environment["PATH"]))


def log():
    path = server.place("server.log")
    return path.read_text(errors="replace") if path.exists() else ""


LANGUAGES = {"js": javascript, "python": python, "go": go, "java": java}
KINDS = {
    "sh": shell, "usage": usage, "dockerfile": dockerfile, "toml": toml, "dotenv": dotenv, "yaml": any_yaml, "compose": compose,
    "json": any_json, "sysctl": sysctl, "redis-conf": redis, "redis-user": redis, "proxy": proxy,
    **dict.fromkeys(LANGUAGES, snippet), "php": syntax("php", "-l"), "ruby": syntax("ruby", "-c"),
}
