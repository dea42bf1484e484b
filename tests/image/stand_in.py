"""A stand-in for the Rust image, made of this machine, so that the whole Dockerfile can be built without a registry.

Its shell, binutils and dpkg are real. Its apt-get does nothing, and its cargo takes the binary that is built already,
once it has seen the command line and the files that the real one would need.
"""

import re
import shutil
import tomllib
from pathlib import Path

import engine
from engine import BINARY, REPOSITORY, run

TOOLS = """
    basename cat chmod cp dirname dpkg dpkg-query env find grep head ls mkdir readelf rm sed sh strip touch tr
""".split()

DOCKERFILE = """FROM scratch
COPY . /
"""

CARGO = """#!/bin/sh
set -eu
[ "$*" = "build --release --locked --bin fanfare --target $MACHINE-unknown-linux-gnu --target-dir /target" ]
for file in $FILES; do
    [ -f "$file" ] || { echo "cargo: $file was not copied" >&2 && exit 1; }
done
for file in $(ls -A); do
    case $file in
        .cargo | Cargo.lock | Cargo.toml | LICENSE | bench | config | src) ;;
        *) echo "cargo: $file is not needed" >&2 && exit 1 ;;
    esac
done
mkdir -p "/target/$MACHINE-unknown-linux-gnu/release"
cp /prebuilt/fanfare "/target/$MACHINE-unknown-linux-gnu/release/fanfare"
"""


def _sources():
    """The files that the compiler reads."""
    manifest = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())
    packages = [".", *manifest["workspace"]["members"]]
    files = {REPOSITORY / "Cargo.lock"}
    for package in packages:
        files.add(REPOSITORY / package / "Cargo.toml")
        files.update((REPOSITORY / package).glob("build.rs"))
    for folder in (".cargo", *(f"{package}/src" for package in packages)):
        files.update(file for file in (REPOSITORY / folder).rglob("*") if file.is_file())
    for file in [file for file in files if file.suffix == ".rs" and "tests" not in str(file)]:
        for included in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', file.read_text()):
            files.add((file.parent / included).resolve())
    return sorted(str(file.relative_to(REPOSITORY)) for file in files)


def lay_out():
    """Makes the folder that the stand-in is built from."""
    root = engine.work / "stand-in"
    for folder in ("tmp", "target", "etc", "prebuilt", "var/lib/dpkg", "usr/local/bin", "usr/bin", "usr/share/doc"):
        (root / folder).mkdir(parents=True)
    # As on every Debian of today.
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / name).mkdir(exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")

    libraries = set()
    for tool in TOOLS:
        path = shutil.which(tool)
        shutil.copy(path, root / "usr/bin" / tool)
        libraries.update(re.findall(r"(/\S+) \(0x", run("ldd", path, check=False).stdout))
    libraries.update(re.findall(r"(/\S+) \(0x", run("ldd", BINARY).stdout))
    for library in libraries:
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)

    # What the packages say of themselves, and the authorities.
    for file in ("/etc/os-release", "/var/lib/dpkg/status"):
        shutil.copy(file, root / file.lstrip("/"))
    shutil.copytree("/var/lib/dpkg/info", root / "var/lib/dpkg/info", ignore=_only_lists)
    for package in ("libc6", "libgcc-s1", "ca-certificates"):
        documents = root / "usr/share/doc" / package
        documents.mkdir()
        shutil.copy(f"/usr/share/doc/{package}/copyright", documents)
    shutil.copytree("/usr/share/ca-certificates", root / "usr/share/ca-certificates")

    # The collected one is the same without what debuggers want, and a fifth of the size.
    shutil.copy(engine.work / "collected/system/usr/bin/fanfare", root / "prebuilt/fanfare")
    machine = "x86_64" if any("x86_64" in library for library in libraries) else "aarch64"
    cargo = CARGO.replace("$MACHINE", machine).replace("$FILES", " ".join(_sources()))
    for name, text in {"cargo": cargo, "apt-get": "#!/bin/sh\n"}.items():
        program = root / "usr/local/bin" / name
        program.write_text(text)
        program.chmod(0o755)
    (root / "Dockerfile").write_text(DOCKERFILE)
    return root


def _only_lists(_, names):
    return [name for name in names if not Path(name).name.endswith((".list", "format"))]
