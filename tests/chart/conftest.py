"""Asked for once, so that a missing tool is one clear error."""

import os
import subprocess

import pytest


def pytest_sessionstart(session):
    missing = [name for name in ("HELM", "FANFARE_BIN") if not os.access(os.environ.get(name, ""), os.X_OK)]
    if missing:
        pytest.exit(f"set {' and '.join(missing)} to the programs to test with", returncode=2)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[str, str]:
    """A certificate for this machine and its private key, PEM."""
    place = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "30",
         "-out", "tls.crt", "-keyout", "tls.key"],
        cwd=place, check=True, capture_output=True,
    )  # fmt: skip
    return (place / "tls.crt").read_text(), (place / "tls.key").read_text()
