"""The broker under test: one process, its own configuration, a port of its own.

Each broker writes its configuration into a directory of its own, listens on a port the system chose and is
stopped by SIGTERM, which must end in exit code 0.
"""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import threading

APP_ID = "1"
KEY = "app-key"
SECRET = "app-secret"
DEADLINE_S = 10

LISTENING = re.compile(r"listening on http://(\S+):(\d+)")


def settings(values):
    """`values` as TOML lines; JSON and TOML agree on strings, integers, booleans and lists of them."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def app_table(app_id, key, secret, **values):
    return (
        "[[apps]]\n"
        f"id = {json.dumps(app_id)}\n"
        f"keys = [{{ key = {json.dumps(key)}, secret = {json.dumps(secret)} }}]\n" + settings(values)
    )


class Broker:
    """A running broker with one app, and more apps where `more_apps` gives their tables."""

    def __init__(self, directory, app=None, connection=None, more_apps=()):
        self._directory = directory
        self._config = directory / "fanfare.toml"
        self._config.write_text(
            "\n".join(
                [
                    '[server]\nbind = "127.0.0.1:0"\n',
                    '[metrics]\nbind = ""\n',
                    "[connection]\n" + settings(connection or {}),
                    app_table(APP_ID, KEY, SECRET, **{"client_events": True, **(app or {})}),
                    *more_apps,
                ]
            ),
            encoding="utf-8",
        )
        self._process = None
        self.port = None
        self.start()

    def start(self):
        """Starts the process; a second start takes the port of the first."""
        command = [os.environ["FANFARE_BIN"], "serve", "--config", str(self._config)]
        if self.port is not None:
            command += ["--bind", f"127.0.0.1:{self.port}"]
        self._log = open(self._directory / "stderr.log", "ab")
        # Only the file configures it, whatever else is set on this machine.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FANFARE_")}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, env=environment, text=True
        )
        ports = queue.Queue()
        threading.Thread(target=self._read_stdout, args=(self._process.stdout, ports), daemon=True).start()
        try:
            port = ports.get(timeout=DEADLINE_S)
        except queue.Empty:
            port = None
        if port is None:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the broker did not come up:\n{self.log()}")
        self.port = port

    def stop(self):
        """Ends the process as an operator would, and insists on a graceful end."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the broker ignored SIGTERM for {DEADLINE_S} s:\n{self.log()}") from None
        finally:
            self._log.close()
        assert code == 0, f"the broker ended with {code}:\n{self.log()}"

    def restart(self):
        self.stop()
        self.start()

    @contextlib.contextmanager
    def paused(self):
        """The process stands still meanwhile, as on a machine that is suspended, moved or too busy."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def log(self):
        return (self._directory / "stderr.log").read_text(encoding="utf-8", errors="replace")

    @staticmethod
    def _read_stdout(stdout, ports):
        for line in stdout:
            if found := LISTENING.search(line):
                ports.put(int(found.group(2)))
        ports.put(None)
        stdout.close()
