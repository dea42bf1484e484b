"""What is in the image, and what it says of itself."""

import json
import re
import shutil
import stat
import tarfile
import unittest
from pathlib import Path

import engine
import stand_in
from engine import BINARY, IMAGE, REPOSITORY, run

SIZE_MAX = 30_000_000

# Every file of the image; {gnu} is the architecture's folder of libraries.
FILES = """
    etc/group
    etc/nsswitch.conf
    etc/os-release
    etc/passwd
    etc/ssl/certs/ca-certificates.crt
    {interpreter}
    lib/{gnu}/libc.so.6
    lib/{gnu}/libgcc_s.so.1
    lib/{gnu}/libm.so.6
    usr/bin/fanfare
    usr/share/doc/ca-certificates/copyright
    usr/share/doc/fanfare/copyright
    usr/share/doc/libc6/copyright
    usr/share/doc/libgcc-s1/copyright
    var/lib/dpkg/status.d/ca-certificates
    var/lib/dpkg/status.d/libc6
    var/lib/dpkg/status.d/libgcc-s1
"""


def members(image):
    """Everything in an image, by name: type, mode, owner and the content's hash."""
    container = engine.podman("create", image).stdout.strip()
    archive = engine.work / "exported.tar"
    engine.podman("export", "--output", archive, container)
    engine.podman("rm", container)
    found = {}
    with tarfile.open(archive) as exported:
        for member in exported:
            content = hash(exported.extractfile(member).read()) if member.isreg() else None
            found[member.name] = (member.type, stat.S_IMODE(member.mode), member.uid, member.gid, content)
    archive.unlink()
    # What podman itself lays out for what it mounts.
    mounted = re.compile(r"(dev|proc|run|sys)(/.*)?|etc/(hostname|hosts|mtab|resolv\.conf)")
    return {name: member for name, member in found.items() if not mounted.fullmatch(name)}


class Contents(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.members = members(IMAGE)
        cls.said = engine.inspect(IMAGE)
        cls.root = engine.work / "collected/system"

    def test_it_has_at_most_30_mb(self):
        size = self.said["Size"]
        print(f"{size / 1e6:.1f} MB ", end="")
        self.assertLessEqual(size, SIZE_MAX)

    def test_it_has_only_the_files_it_needs(self):
        gnu, interpreter = {
            "amd64": ("x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2"),
            "arm64": ("aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1"),
        }[self.said["Architecture"]]
        files = {name for name, member in self.members.items() if member[0] == tarfile.REGTYPE}
        self.assertEqual(files, set(FILES.format(gnu=gnu, interpreter=interpreter).split()))
        # So there is no shell either.
        executable = {name for name in files if self.members[name][1] & 0o111}
        self.assertEqual(executable, {"usr/bin/fanfare", interpreter})
        self.assertTrue(all(member[0] in (tarfile.REGTYPE, tarfile.DIRTYPE) for member in self.members.values()))

    def test_only_root_can_change_what_is_in_it(self):
        for name, (_, mode, uid, gid, _) in self.members.items():
            own = name == "var/lib/fanfare"
            self.assertEqual((uid, gid), (65532, 65532) if own else (0, 0), name)
            self.assertEqual(mode, 0o1777 if name == "tmp" else mode & 0o755, name)
        self.assertIn("var/lib/fanfare", self.members)

    def test_functions_keep_their_names_and_nothing_else_is_kept_for_debuggers(self):
        binary = self.root / "usr/bin/fanfare"
        sections = run("readelf", "--section-headers", "--wide", binary).stdout
        self.assertIn(" .symtab ", sections)
        for section in (".debug_info", ".debug_line"):
            self.assertNotIn(f" {section} ", sections)
        self.assertIn("fanfare3cli3run", run("readelf", "--symbols", "--wide", binary).stdout)

    def test_it_trusts_the_authorities_of_debian_and_none_of_this_machine(self):
        bundle = (self.root / "etc/ssl/certs/ca-certificates.crt").read_text()
        authorities = sorted(Path("/usr/share/ca-certificates/mozilla").glob("*.crt"))
        self.assertGreater(len(authorities), 100)
        self.assertEqual(bundle, "".join(file.read_text() for file in authorities))
        self.assertEqual(bundle.count("\n-----END CERTIFICATE-----\n"), len(authorities))

    def test_scanners_find_its_packages(self):
        for package in ("ca-certificates", "libc6", "libgcc-s1"):
            status = (self.root / "var/lib/dpkg/status.d" / package).read_text()
            self.assertIn(f"Package: {package}\n", status)
            self.assertRegex(status, r"(?m)^Version: \d")
        self.assertIn("VERSION_ID=", (self.root / "etc/os-release").read_text())

    def test_it_says_how_it_is_run(self):
        config = self.said["Config"]
        self.assertEqual(config["User"], "65532:65532")
        self.assertEqual(config["Entrypoint"], ["/usr/bin/fanfare"])
        self.assertEqual(config["Cmd"], ["serve"])
        self.assertEqual(config["StopSignal"], "SIGTERM")
        self.assertEqual(set(config["ExposedPorts"]), {"6001/tcp", "9601/tcp"})
        own = {variable for variable in config["Env"] if not variable.startswith("PATH=")}
        self.assertEqual(own, {"FANFARE_SERVER_BIND=0.0.0.0:6001", "FANFARE_METRICS_BIND=0.0.0.0:9601"})
        health = self.said["Healthcheck"]
        self.assertEqual(health["Test"], ["CMD", "/usr/bin/fanfare", "healthcheck", "--live"])
        self.assertEqual((health["Interval"], health["Timeout"], health["Retries"]), (10 * 10**9, 5 * 10**9, 3))

    def test_it_says_what_it_is(self):
        labels = {name.removeprefix("org.opencontainers.image."): said for name, said in self.said["Labels"].items()}
        self.assertEqual(f"fanfare {labels['version']}\n", run(BINARY, "--version").stdout)
        self.assertEqual((labels["title"], labels["revision"], labels["licenses"]), ("Fanfare", "abc123", "MIT"))
        self.assertTrue(labels["source"].startswith("https://") and labels["description"])
        self.assertIn("created", labels)


class Dockerfile(unittest.TestCase):
    def test_compiled_and_packed_images_are_the_same(self):
        if engine.problem:
            self.skipTest(engine.problem)
        image, compiler = "localhost/fanfare:compiled", "localhost/stand-in"
        context = stand_in.lay_out()
        engine.build(compiler, context, file=context / "Dockerfile")
        engine.build(image, REPOSITORY, f"--build-arg=RUST_IMAGE={compiler}", *engine.arguments())

        self.assertEqual(members(image), members(IMAGE))
        compiled, packed = engine.inspect(image), engine.inspect(IMAGE)
        for said in ("Config", "Healthcheck", "Architecture", "Os"):
            self.assertEqual(compiled[said], packed[said])

    def test_files_get_the_time_they_are_told(self):
        copy = engine.work / "dated"
        run("env", "SOURCE_DATE_EPOCH=1700000000", engine.COLLECT, BINARY, copy)
        times = {path.stat().st_mtime for path in copy.rglob("*")}
        shutil.rmtree(copy)
        self.assertEqual(times, {1_700_000_000})


class Collect(unittest.TestCase):
    def check_refusal(self, message, *arguments):
        done = run(engine.COLLECT, *arguments, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(message, done.stderr)

    def test_it_says_what_it_cannot_use(self):
        nowhere = engine.work / "nowhere"
        self.check_refusal("Usage: collect BINARY DIRECTORY")
        self.check_refusal("there is no", nowhere / "fanfare", nowhere)
        self.check_refusal("is no program for Linux", REPOSITORY / "LICENSE", nowhere)
        self.check_refusal("exists already", BINARY, engine.work)
        self.assertFalse(nowhere.exists())
