"""A machine for one test: this one as it is, with systemd as its first process, all changes in memory."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
DEADLINE_S = 60


class Missing(Exception):
    """Why there can be no such machine here."""


class Machine:
    def __enter__(self):
        check_possible()
        self.folder = Path(tempfile.mkdtemp(prefix="fanfare-machine-"))
        self.cgroup = cgroup_root() / self.folder.name
        self.cgroup.mkdir()
        self.log = open(self.folder.with_suffix(".log"), "wb")
        # Killed with us, and everything in it with it, whatever happens.
        starter = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--ipc", "--uts"]
        starter += ["--cgroup", "--fork", "--kill-child=KILL", HERE / "boot", self.folder]
        join = f'echo $$ >{self.cgroup}/cgroup.procs; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", join, "join", *starter],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
        )
        try:
            self.first = self.wait("the machine to boot", self.booted)
        except BaseException:
            print(self.folder.with_suffix(".log").read_text(errors="replace"), flush=True)
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.wait("the machine's processes to end", lambda: remove_cgroup(self.cgroup))
        shutil.rmtree(self.folder)
        self.folder.with_suffix(".log").unlink()

    def booted(self):
        if self.process.poll() is not None:
            raise Missing("it did not boot")
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            return None
        self.first = children[0]
        if Path(f"/proc/{self.first}/comm").read_text().strip() != "systemd":
            return None
        return self.first if self.run("systemctl", "is-active", "basic.target", check=False).returncode == 0 else None

    def run(self, *command, check=True, text=None):
        """Runs a command there, as root."""
        enter = ["nsenter", "--target", str(self.first), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        enter += ["--root", "--wd=/", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]
        enter += ["DEBIAN_FRONTEND=noninteractive"]
        done = subprocess.run(
            [*enter, *map(str, command)], input=text, text=True, capture_output=True, timeout=DEADLINE_S,
            stdin=subprocess.DEVNULL if text is None else None,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def says(self, *command):
        return self.run(*command, check=False).stdout.strip()

    def read(self, path):
        return self.run("cat", path).stdout

    def write(self, path, text):
        """Puts text into a file there that is there already, whose owner and mode stay."""
        self.run("tee", path, text=text)

    def take(self, path):
        """Brings a file of ours there."""
        there = f"/tmp/{Path(path).name}"
        with open(path, "rb") as file:
            enter = ["nsenter", "--target", str(self.first), "--mount", "--root", "--wd=/", "dd", "status=none", f"of={there}"]
            subprocess.run(enter, stdin=file, check=True)
        return there

    def wait(self, what, condition, deadline_s=DEADLINE_S):
        end = time.monotonic() + deadline_s
        while True:
            try:
                if found := condition():
                    return found
            except (OSError, subprocess.TimeoutExpired):
                pass
            assert time.monotonic() < end, f"waited in vain for {what}"
            time.sleep(0.05)


def check_possible():
    if os.geteuid() != 0:
        raise Missing("that takes root")
    for tool in ["unshare", "nsenter", "setpriv", "dpkg", "deb-systemd-invoke", "/lib/systemd/systemd", "ip"]:
        if not shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
            raise Missing(f"there is no {tool}")
    for path in ["/usr/bin/fanfare", "/etc/fanfare", "/var/lib/fanfare"]:
        if os.path.exists(path):
            raise Missing(f"{path} is there: fanfare is installed on this machine")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        subprocess.run(["modprobe", "overlay"], stderr=subprocess.DEVNULL)
        if "\toverlay\n" not in Path("/proc/filesystems").read_text():
            raise Missing("there is no overlayfs")
    if cgroup_root() is None:
        raise Missing("there is no cgroup2")


def cgroup_root():
    """Where this machine has its control groups of version 2."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(place)
    return None


def remove_cgroup(folder):
    """Removes a control group and those in it; false as long as something lives there."""
    for path, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(path)
        except OSError:
            return False
    return True


def stop_on_signals():
    """Ends by an exception, so that machines are cleaned up."""
    for number in [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]:
        signal.signal(number, lambda number, _: (_ for _ in ()).throw(SystemExit(128 + number)))
