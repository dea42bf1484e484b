"""Turns the Python 2 source of the package `autobahntestsuite` into importable Python 3.

Usage: convert.py UNPACKED_SOURCE OUT_DIR

Only the fuzzing client's parts are kept. What the words `str` and `bytes` meant in Python 2 is restored by
`client.py` when it runs: a `str` of the suite is the latin-1 view of the bytes it stands for.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

# Other tools of the package, which the fuzzing client does not import.
DROPPED = (
    "choosereactor*", "echo*", "interfaces*", "massconnect*", "rinterfaces*", "serializer*", "testdb*", "testee*",
    "testrun*", "util*", "wamp*", "wsperf*", "wstest*",
)  # fmt: skip


def main(source: Path, out: Path) -> None:
    package = out / "autobahntestsuite"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source / "autobahntestsuite", package)
    for pattern in DROPPED:
        for path in package.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "fissix", "-w", "-n", "--no-diffs", str(package)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    drop_html_reports(package / "report.py")
    for path in (package / "case").glob("*.py"):
        text = convert_case(path.name, path.read_text(encoding="utf8"))
        path.write_text(text, encoding="utf8")


def drop_html_reports(path: Path) -> None:
    """Keeps the constants that others import, without the generator and its template engine."""
    text = path.read_text(encoding="utf8")
    text = text[: text.index("from zope.interface import implementer")]
    path.write_text(text.replace("import jinja2\n", ""), encoding="utf8")


def convert_case(name: str, text: str) -> str:
    # A literal was UTF-8 bytes: spelled as \xNN it is the latin-1 view of the same bytes.
    text = "".join(c if c.isascii() else "".join(f"\\x{b:02x}" for b in c.encode("utf8")) for c in text)
    text = re.sub(
        r'chr\((\w)\)\.encode\("utf-8"\)',
        r'chr(\1).encode("utf-8", "surrogatepass").decode("latin-1")',
        text,
    )
    text = text.replace("(object, Case, )", "(Case, )").replace("(object, Case)", "(Case,)")
    text = text.replace("from zope.interface import implements\n", "implements = lambda *a: None\n")
    if name == "case10_1_1.py":
        text = text.replace(
            "len(self.payload) / self.p.autoFragmentSize", "len(self.payload) // self.p.autoFragmentSize"
        )
    if name == "case12_x_x.py":
        text = convert_compression_case(text)
    return text


def convert_compression_case(text: str) -> str:
    """Never run here, yet imported with the rest: the library has renamed what it names."""
    text = re.sub(
        r'pkg_resources\.resource_filename\("autobahntestsuite", ("testdata/%s" % [^)]*)\)',
        r"os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), \1)",
        text,
    )
    for camel, snake in (("NoContextTakeover", "no_context_takeover"), ("MaxWindowBits", "max_window_bits")):
        text = re.sub(rf"\b(request|accept){camel}\b", rf"\1_{snake}", text)
    text = text.replace("noContextTakeover", "no_context_takeover").replace("windowBits", "window_bits")
    if "import os" not in text.split("class ")[0]:
        text = "import os\n" + text
    return text


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
