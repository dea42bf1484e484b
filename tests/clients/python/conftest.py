import os

import pusher
import pytest

from bare_socket import BareSocket
from broker import APP_ID, KEY, SECRET, Broker


def pytest_configure(config):
    if not os.path.isabs(os.environ.get("FANFARE_BIN", "")):
        pytest.exit("FANFARE_BIN must be the absolute path of the fanfare binary", returncode=2)


@pytest.fixture
def start_broker(tmp_path):
    """Starts brokers; each is stopped, gracefully, at the end of the test."""
    brokers = []

    def start(**settings):
        directory = tmp_path / f"broker-{len(brokers)}"
        directory.mkdir()
        brokers.append(Broker(directory, **settings))
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.stop()


@pytest.fixture
def broker(start_broker):
    return start_broker()


@pytest.fixture
def connect(broker):
    """Opens bare sockets to the broker of the test."""
    sockets = []

    def connect(**settings):
        sockets.append(BareSocket(settings.pop("to", broker), **settings))
        return sockets[-1]

    yield connect
    for socket in sockets:
        socket.close()


def sdk_for(broker, app_id=APP_ID, key=KEY, secret=SECRET, **settings):
    return pusher.Pusher(
        app_id=app_id, key=key, secret=secret, ssl=False, host="127.0.0.1", port=broker.port, **settings
    )


@pytest.fixture
def sdk(broker):
    return sdk_for(broker)
