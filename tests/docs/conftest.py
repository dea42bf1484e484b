import os

import pytest

import server
from world import World


def pytest_configure(config):
    for name in ("FANFARE_BIN", "TOOLS"):
        if not os.path.isabs(os.environ.get(name, "")):
            pytest.exit(f"{name} must be an absolute path", returncode=2)
    if os.getpid() != 1:
        pytest.exit("run tests/docs/run: the pages are tried in a world of their own", returncode=2)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    yield World(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def no_server_stays():
    yield
    server.stop()
