"""What holds of the Debian package, told in the order of its life."""

import gzip
import hashlib
import hmac
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from machine import Machine, Missing, stop_on_signals

ROOT = Path(__file__).parent.parent.parent
CONFIG = "/etc/fanfare/fanfare.toml"
APPS = "/etc/fanfare/apps.toml"
passed, failed = 0, 0


def story(name, tell, *with_):
    """Tells one thing that must hold, and whether it does. A story that fails does not stop the others."""
    global passed, failed
    try:
        tell(*with_)
    except Exception:
        failed += 1
        print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
    else:
        passed += 1
        print(f"ok {name}", flush=True)
        return True
    return False


def output(*command, **options):
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, **options).stdout


def equal(seen, wanted):
    assert seen == wanted, f"{seen!r} instead of {wanted!r}"


# What is in the package.


def files_have_their_modes(deb, _):
    listed = {}
    for line in output("dpkg-deb", "--contents", deb).splitlines():
        mode, owner, _, _, _, name = line.split(maxsplit=5)
        listed[name[1:]] = (mode, owner)
        assert owner == "0/0", line
        assert "s" not in mode and mode[8] != "w", line
    equal(listed["/usr/bin/fanfare"][0], "-rwxr-xr-x")
    equal(listed[CONFIG][0], "-rw-r-----")
    assert APPS not in listed
    for name in [
        "/usr/lib/systemd/system/fanfare.service",
        "/usr/lib/systemd/system/fanfare.socket",
        "/usr/lib/sysusers.d/fanfare.conf",
        "/usr/lib/tmpfiles.d/fanfare.conf",
        "/usr/share/man/man1/fanfare.1.gz",
        "/usr/share/man/man5/fanfare.toml.5.gz",
        "/usr/share/doc/fanfare/copyright",
        "/usr/share/doc/fanfare/changelog.gz",
        "/usr/share/doc/fanfare/changelog.Debian.gz",
    ]:
        equal(listed[name][0], "-rw-r--r--")


def it_says_what_it_needs(deb, _):
    assert re.fullmatch(r"0\.\d+\.\d+-1|\d+\.\d+\.\d+-1", output("dpkg-deb", "--field", deb, "Version").strip())
    needs = output("dpkg-deb", "--field", deb, "Depends")
    assert "libc6 (>=" in needs and "systemd" in needs, needs
    equal(output("dpkg-deb", "--info", deb, "conffiles").split(), [CONFIG])


def the_binary_is_stripped(_, folder):
    sections = output("readelf", "--sections", "--wide", folder / "usr/bin/fanfare")
    assert ".symtab" not in sections and ".debug_info" not in sections, sections


def nothing_of_the_configuration_is_a_secret(_, folder):
    text = (folder / CONFIG[1:]).read_text()
    assert "[[apps]]" not in text and "secret =" not in text and "key =" not in text, text


def manual_pages_render(_, folder):
    pages = sorted((folder / "usr/share/man").glob("man*/*.gz"))
    assert len(pages) > 20, pages
    for page in pages:
        source = gzip.decompress(page.read_bytes())
        shown = subprocess.run(["groff", "-man", "-Tutf8", "-Kutf8", "-ww"], input=source, capture_output=True, check=True)
        equal(shown.stderr.decode(), "")
        text = re.sub("\x1b\\[[0-9;]*m|.\b", "", shown.stdout.decode())
        name = page.name.removesuffix(".gz").rsplit(".", 1)[0]
        assert "NAME" in text and name in re.sub("[\u2010\u2212]", "-", text), page
        if lexgrog := shutil.which("lexgrog"):
            # What apropos and whatis find it by.
            assert f'"{name} - ' in output(lexgrog, page), page
    examples = output("man", "--local-file", folder / "usr/share/man/man1/fanfare.1.gz", env={**os.environ, "MANWIDTH": "100"})
    assert re.search(r"^ +fanfare config check --config fanfare.toml$", examples, re.MULTILINE), examples


def bash_completes(_, folder):
    script = folder / "usr/share/bash-completion/completions/fanfare"
    complete = """
        source "$1"
        COMP_WORDS=(fanfare app ro) COMP_CWORD=2
        _fanfare fanfare ro app
        printf '%s ' "${COMPREPLY[@]}"
    """
    equal(output("bash", "--norc", "-euc", complete, "bash", script).split(), ["rotate"])


def the_archive_has_the_same(deb, folder):
    [archive] = deb.parent.glob("fanfare-*.tar.gz")
    names = output("tar", "--list", "--file", archive).splitlines()
    inside = {name.split("/", 1)[1] for name in names}
    for name in ["fanfare", "LICENSE", "man/fanfare.1.gz", "completions/fanfare.zsh", "systemd/fanfare.service"]:
        assert name in inside, (name, inside)
    digest = hashlib.sha256(output("tar", "--extract", "--to-stdout", "--file", archive, "--wildcards", "*/fanfare.service").encode())
    equal(digest.hexdigest(), hashlib.sha256((folder / "usr/lib/systemd/system/fanfare.service").read_bytes()).hexdigest())


# The life of an installation.


def properties(machine, *names):
    shown = machine.says("systemctl", "show", "fanfare.service", *[f"--property={name}" for name in names])
    return dict(line.split("=", 1) for line in shown.splitlines())


def pid(machine):
    equal(machine.says("systemctl", "is-active", "fanfare.service"), "active")
    return properties(machine, "MainPID")["MainPID"]


def owner(machine, path):
    return machine.says("stat", "--format=%U:%G %a", path)


def credentials(machine, app="1"):
    shown = json.loads(machine.run("fanfare", "app", "show", app, "--secrets", "--json", "--config", CONFIG).stdout)
    return shown["keys"][-1]["key"], shown["keys"][-1]["secret"]


PUBLISH = """
import http.client, sys
address, path = sys.argv[1:]
connection = http.client.HTTPConnection(address, timeout=10)
connection.request("POST", path, sys.stdin.read(), {"Content-Type": "application/json"})
print(connection.getresponse().status)
"""


def publish(machine, key, secret, app="1", address="127.0.0.1:6001"):
    """What a backend with these credentials is answered."""
    body = json.dumps({"name": "e", "channel": "news", "data": "d"})
    query = f"auth_key={key}&auth_timestamp={int(time.time())}&auth_version=1.0"
    query += f"&body_md5={hashlib.md5(body.encode()).hexdigest()}"
    path = f"/apps/{app}/events"
    signature = hmac.new(secret.encode(), f"POST\n{path}\n{query}".encode(), hashlib.sha256).hexdigest()
    asked = machine.run("python3", "-c", PUBLISH, address, f"{path}?{query}&auth_signature={signature}", text=body)
    return int(asked.stdout)


def installed_it_runs_at_once(machine, deb):
    said = machine.run("dpkg", "--install", machine.take(deb)).stdout
    pid(machine)
    equal(machine.says("systemctl", "is-enabled", "fanfare.service"), "enabled")
    equal(machine.says("systemctl", "is-enabled", "fanfare.socket"), "disabled")
    key, secret = credentials(machine)
    assert "made app 1" in said and secret not in said and key not in said, said
    equal(machine.run("fanfare", "healthcheck", "--config", CONFIG).returncode, 0)


def files_are_the_services_to_read_and_nobody_elses(machine):
    equal(owner(machine, CONFIG), "root:fanfare 640")
    equal(owner(machine, APPS), "root:fanfare 640")
    equal(owner(machine, "/var/lib/fanfare"), "fanfare:fanfare 700")
    equal(machine.says("id", "--name", "--groups", "fanfare"), "fanfare")
    refused = machine.run("setpriv", "--reuid=nobody", "--clear-groups", "cat", APPS, check=False)
    assert refused.returncode != 0 and refused.stdout == "", refused


def the_first_app_has_credentials_of_its_own(machine):
    key, secret = credentials(machine)
    assert re.fullmatch("[0-9a-f]{20}", key) and re.fullmatch("[0-9a-f]{32}", secret)
    equal(publish(machine, key, secret), 200)
    equal(publish(machine, key, "wrong"), 401)
    equal(publish(machine, "demo-key", "demo-secret"), 401)


def it_is_reached_from_this_machine_alone(machine):
    listening = machine.says("ss", "--listening", "--tcp", "--numeric", "--no-header").splitlines()
    addresses = [line.split()[3] for line in listening]
    assert addresses and all(address.startswith("127.0.0.1:") for address in addresses), addresses


def it_has_no_rights_but_to_serve(machine):
    process = pid(machine)
    status = dict(line.split(":\t", 1) for line in machine.read(f"/proc/{process}/status").splitlines() if ":\t" in line)
    equal(int(status["CapEff"], 16) | int(status["CapBnd"], 16), 0)
    equal((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
    equal(status["Uid"].split()[0], machine.says("id", "--user", "fanfare"))
    limits = machine.read(f"/proc/{process}/limits")
    # As the unit says, or as much as we are allowed to give.
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert re.search(rf"Max open files +(1048576|{ours}) +(1048576|{ours}) ", limits), limits
    # As the service sees it.
    inside = ["nsenter", "--target", process, "--mount"]
    written = [machine.run(*inside, "touch", path, check=False).returncode for path in ["/etc/x", "/usr/x", "/home/x"]]
    assert all(written), written


def the_unit_is_known_to_be_hardened(machine):
    # Of 0 to 100; more than the threshold is an error.
    machine.run("systemd-analyze", "security", "--no-pager", "--threshold=16", "fanfare.service")


def systemd_finds_no_fault_with_the_units(machine):
    units = [f"/usr/lib/systemd/system/fanfare.{kind}" for kind in ["service", "socket"]]
    found = machine.run("systemd-analyze", "verify", *units)
    equal(found.stdout + found.stderr, "")


def variables_of_etc_default_are_settings(machine):
    machine.run("tee", "/etc/default/fanfare", text="FANFARE_SERVER_BIND=127.0.0.1:6003\n")
    machine.run("systemctl", "restart", "fanfare.service")
    equal(publish(machine, *credentials(machine), address="127.0.0.1:6003"), 200)
    machine.run("rm", "/etc/default/fanfare")
    machine.run("systemctl", "restart", "fanfare.service")
    pid(machine)


def a_new_app_is_served_without_a_restart(machine):
    before = pid(machine)
    made = json.loads(machine.run("fanfare", "app", "create", "--json", "--config", CONFIG).stdout)
    equal((made["id"], owner(machine, APPS)), ("2", "root:fanfare 640"))
    machine.run("systemctl", "reload", "fanfare.service")
    machine.wait("the new app", lambda: publish(machine, made["key"], made["secret"], app="2") == 200)
    equal(pid(machine), before)


def it_comes_back_when_it_dies(machine):
    before = pid(machine)
    machine.run("kill", "-KILL", before)
    machine.wait("another process", lambda: properties(machine, "MainPID", "ActiveState") | {"MainPID": ""} == {
        "MainPID": "", "ActiveState": "active"} and properties(machine, "MainPID")["MainPID"] not in ["0", before])


def a_wrong_configuration_is_not_tried_again_and_again(machine):
    before = machine.read(CONFIG)
    machine.write(CONFIG, before + "\n[server]\nbnid = 1\n")
    assert machine.run("systemctl", "restart", "fanfare.service", check=False).returncode != 0
    equal(properties(machine, "ExecMainStatus", "NRestarts", "ActiveState"),
          {"ExecMainStatus": "3", "NRestarts": "0", "ActiveState": "failed"})
    machine.write(CONFIG, before)
    machine.run("systemctl", "start", "fanfare.service")
    pid(machine)


def an_upgrade_brings_the_new_defaults(machine, deb):
    before, apps, first = pid(machine), machine.read(APPS), machine.read(CONFIG)
    machine.run("dpkg", "--install", machine.take(deb))
    assert machine.read(CONFIG) == first + "# new\n"
    equal((owner(machine, CONFIG), machine.read(APPS)), ("root:fanfare 640", apps))
    assert pid(machine) != before


def an_upgrade_keeps_what_was_changed(machine, deb):
    changed = machine.read(CONFIG).replace("127.0.0.1:6001", "127.0.0.1:6002")
    machine.write(CONFIG, changed)
    machine.run("systemctl", "disable", "fanfare.service")
    machine.run("dpkg", "--force-confold", "--install", machine.take(deb))
    equal((machine.read(CONFIG), owner(machine, CONFIG)), (changed, "root:fanfare 640"))
    equal(machine.says("systemctl", "is-enabled", "fanfare.service"), "disabled")
    equal(publish(machine, *credentials(machine), address="127.0.0.1:6002"), 200)
    machine.run("systemctl", "enable", "fanfare.service")


def apps_that_were_moved_do_not_come_back(machine, deb):
    apps = machine.read(APPS)
    machine.run("mv", APPS, "/etc/fanfare/moved.toml")
    machine.run("dpkg", "--force-confold", "--install", machine.take(deb))
    assert machine.run("test", "-e", APPS, check=False).returncode != 0
    machine.run("mv", "/etc/fanfare/moved.toml", APPS)
    machine.run("systemctl", "restart", "fanfare.service")
    equal(machine.read(APPS), apps)


def systemd_can_listen_for_it(machine):
    machine.run("systemctl", "stop", "fanfare.service")
    machine.run("systemctl", "start", "fanfare.socket", "fanfare.service")
    equal(publish(machine, *credentials(machine)), 200)
    machine.run("systemctl", "stop", "fanfare.socket", "fanfare.service")
    machine.run("systemctl", "start", "fanfare.service")
    pid(machine)


def removed_it_leaves_configuration_and_state(machine):
    machine.run("dpkg", "--remove", "fanfare")
    equal(machine.says("systemctl", "is-active", "fanfare.service"), "inactive")
    machine.run("test", "!", "-e", "/usr/bin/fanfare")
    for path in [CONFIG, APPS, "/var/lib/fanfare"]:
        machine.run("test", "-e", path)


def installed_again_it_has_the_same_apps(machine, deb):
    apps = machine.read(APPS)
    machine.run("dpkg", "--force-confold", "--install", machine.take(deb))
    pid(machine)
    equal(machine.read(APPS), apps)


def purged_nothing_is_left_but_the_user(machine):
    machine.run("dpkg", "--purge", "fanfare")
    for path in ["/etc/fanfare", "/var/lib/fanfare", "/usr/bin/fanfare", "/usr/share/doc/fanfare"]:
        machine.run("test", "!", "-e", path)
    equal(machine.says("find", "/etc/systemd/system", "/var/lib/systemd/deb-systemd-helper-enabled", "-name", "fanfare*"), "")
    machine.run("id", "fanfare")
    assert machine.run("dpkg-query", "--show", "fanfare", check=False).returncode != 0


def newer(deb, version, change):
    """The same package in another version, with another default configuration."""
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder) / "content"
        output("dpkg-deb", "--raw-extract", deb, content)
        control = content / "DEBIAN/control"
        control.write_text(re.sub("(?m)^Version: .*", f"Version: {version}", control.read_text()))
        config = content / CONFIG[1:]
        config.write_text(config.read_text() + change)
        out = deb.parent / f"fanfare_{version}.deb"
        output("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", content, out)
        return out


def live(deb):
    with Machine() as machine:
        second, third = newer(deb, "99.0.0-1", "# new\n"), newer(deb, "99.0.1-1", "# newer\n")
        if not story("installed, it runs at once", installed_it_runs_at_once, machine, deb):
            print(machine.says("journalctl", "--no-pager", "--unit=fanfare.service"))
            return
        story("files are the service's to read and nobody else's", files_are_the_services_to_read_and_nobody_elses, machine)
        story("the first app has credentials of its own", the_first_app_has_credentials_of_its_own, machine)
        story("it is reached from this machine alone", it_is_reached_from_this_machine_alone, machine)
        story("it has no rights but to serve", it_has_no_rights_but_to_serve, machine)
        story("the unit is known to be hardened", the_unit_is_known_to_be_hardened, machine)
        story("systemd finds no fault with the units", systemd_finds_no_fault_with_the_units, machine)
        story("variables of /etc/default are settings", variables_of_etc_default_are_settings, machine)
        story("a new app is served without a restart", a_new_app_is_served_without_a_restart, machine)
        story("it comes back when it dies", it_comes_back_when_it_dies, machine)
        story("a wrong configuration is not tried again and again", a_wrong_configuration_is_not_tried_again_and_again, machine)
        story("an upgrade brings the new defaults", an_upgrade_brings_the_new_defaults, machine, second)
        story("an upgrade keeps what was changed", an_upgrade_keeps_what_was_changed, machine, third)
        story("apps that were moved do not come back", apps_that_were_moved_do_not_come_back, machine, third)
        story("systemd can listen for it", systemd_can_listen_for_it, machine)
        story("removed, it leaves configuration and state", removed_it_leaves_configuration_and_state, machine)
        story("installed again, it has the same apps", installed_again_it_has_the_same_apps, machine, third)
        story("purged, nothing is left but the user", purged_nothing_is_left_but_the_user, machine)


# How releases are made.


def workflows_are_sound():
    found = subprocess.run(["actionlint", *sorted((ROOT / ".github/workflows").glob("*.yml"))], cwd=ROOT, capture_output=True, text=True)
    equal((found.returncode, found.stdout), (0, ""))


def notes_are_the_section_of_a_version():
    with tempfile.NamedTemporaryFile("w", suffix=".md") as changelog:
        changelog.write("# Changelog\n\n## Unreleased\n\n- d\n\n## 1.2.3 (2027-01-31)\n\n- a\n  b\n\n## 1.2\n\n- c\n")
        changelog.flush()
        notes = ROOT / "config/release/notes"
        equal(output(notes, "1.2.3", changelog.name).strip(), "- a\n  b")
        equal(output(notes, "1.2", changelog.name).strip(), "- c")
        equal(subprocess.run([notes, "1.2.4", changelog.name], capture_output=True, text=True).returncode, 1)


def a_release_has_one_version():
    version = re.search('(?m)^version = "(.*)"', (ROOT / "Cargo.toml").read_text())[1]
    assert f"version={version}\n" in output(ROOT / "config/release/version", "branch", "main")
    wrong = subprocess.run([ROOT / "config/release/version", "tag", "v99.0.0"], capture_output=True, text=True)
    equal((wrong.returncode, wrong.stdout), (1, ""))
    assert "Cargo.toml says" in wrong.stderr, wrong.stderr


def main():
    stop_on_signals()
    with tempfile.TemporaryDirectory(prefix="fanfare-package-") as out:
        environment = {**os.environ, "DEB_FLAGS": "--fast"}
        made = output(ROOT / "config/debian/build", os.environ["FANFARE_BIN"], out, env=environment)
        [deb] = [Path(line) for line in made.splitlines() if line.endswith(".deb")]
        folder = Path(out) / "content"
        output("dpkg-deb", "--extract", deb, folder)
        for tell in [
            files_have_their_modes, it_says_what_it_needs, the_binary_is_stripped, nothing_of_the_configuration_is_a_secret,
            manual_pages_render, bash_completes, the_archive_has_the_same,
        ]:
            story(tell.__name__.strip("_").replace("_", " "), tell, deb, folder)
        try:
            live(deb)
        except Missing as why:
            print(f"!!! installing the package is skipped: {why} !!!")
    story("notes are the section of a version", notes_are_the_section_of_a_version)
    story("a release has one version", a_release_has_one_version)
    if shutil.which("actionlint"):
        story("workflows are sound", workflows_are_sound)
    else:
        print("!!! the check of the workflows is skipped: there is no actionlint, which takes go !!!")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
