"""Reverse proxies, with the configuration of a page, before the real server."""

import json
import subprocess

import pytest

from server import place, until
from world import APP, PUBLIC, await_event

#: What checks the configuration, and what runs it in the foreground.
COMMANDS = {
    "nginx": (["nginx", "-t"], ["nginx", "-g", "daemon off;"]),
    "haproxy": (["haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"], ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]),
    "caddy": (["caddy", "validate", "--config", "/etc/caddy/Caddyfile"], ["caddy", "run", "--config", "/etc/caddy/Caddyfile"]),
    "apache": (["apache2ctl", "-t"], ["apache2ctl", "-D", "FOREGROUND"]),
}
#: Clients come from addresses of their own.
CLIENT = "127.0.0.9"
#: Refuses whoever seems to come without TLS.
STRICT_APP = APP + "tls_only = true\n"


def passes_everything(world, name, settings):
    """A WebSocket, a signed call and the client's address pass the proxy `name`; the server has these settings."""
    config = world.root / "proxied.toml"
    config.write_text(settings + "address_connections_max = 1\n" + STRICT_APP)
    world.serve(config)
    check, foreground = COMMANDS[name]
    environment = world.environment()
    checked = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    output = place("proxy.log")
    with open(output, "wb") as log:
        process = subprocess.Popen(foreground, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        for _ in until(f"{name} lets clients in"):
            assert process.poll() is None, output.read_text()
            try:
                subscriber = PUBLIC.subscriber("my-channel", address=CLIENT)
                break
            except OSError:
                continue
        PUBLIC.backend().trigger("my-channel", "my-event", {"hello": "world"})
        assert json.loads(await_event(subscriber, "my-event")) == {"hello": "world"}
        # Each of two addresses may have one connection: the server tells them apart.
        # The second has a path as of an SDK that knows only a cluster.
        PUBLIC.subscriber("my-channel", address="127.0.0.10", prefix="/app.pusher.com:443").close()
        with pytest.raises(AssertionError, match="4100"):
            PUBLIC.subscriber("my-channel", address=CLIENT)
        subscriber.close()
    except (AssertionError, OSError) as error:
        raise AssertionError(f"{error}\n{output.read_text(errors='replace')}") from error
    finally:
        process.terminate()
        process.wait(20)
