"""The one server that runs at a time, whoever starts it: a shell block, a container of a block, or a test.

Its process id and its log are files in the folder WORLD, since the programs of shell blocks come and go.
"""

import os
import pathlib
import signal
import subprocess
import time

DEADLINE_S = 15
SUBCOMMANDS = ("healthcheck", "config", "app", "status", "nodes", "drain", "reload", "connections", "webhooks", "help",
               "doctor", "completions", "man")


def place(name):
    return pathlib.Path(os.environ["WORLD"]) / name


def serves(arguments):
    """Whether these arguments make `fanfare` a server."""
    return not any(word in SUBCOMMANDS or word in ("-h", "--help", "-V", "--version") for word in arguments)


def start(arguments, environment, folder):
    """Starts a server in place of the one before, and returns when it listens: 0, or its exit code if it ended."""
    stop()
    with open(place("server.log"), "wb") as log:
        process = subprocess.Popen(
            [os.environ["BROKER"], *arguments],
            env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )
    for _ in until("the server listens"):
        if process.poll() is not None:
            print(place("server.log").read_text(errors="replace"))
            return process.returncode
        if b"listening on" in place("server.log").read_bytes():
            place("server.pid").write_text(str(process.pid))
            return 0


def stop():
    """Ends the server, if one runs, as an operator would; it must leave without a fault."""
    try:
        pid = int(place("server.pid").read_text())
    except FileNotFoundError:
        return
    place("server.pid").unlink()
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    for _ in until("the server ends"):
        if not alive(pid):
            break
    # The tests are the first process of their world, to which the children of others come when those have gone.
    if os.getpid() == 1:
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, place("server.log").read_text(errors="replace")


def alive(pid):
    """Whether a process runs. Whoever started it may have gone, or has not asked yet how it ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def until(what, deadline_s=DEADLINE_S):
    """Yields again and again, until a deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        yield
        time.sleep(0.02)
    log = place("server.log")
    raise AssertionError(f"not within {deadline_s} s: {what}\n{log.read_text(errors='replace') if log.exists() else ''}")
