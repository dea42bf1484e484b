"""The chart as Helm renders it, and what of it a kubelet would give to a container."""

import base64
import json
import os
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "fanfare"
OLD, NEW = "1.27", "1.37"
CASES = sorted(path.relative_to(CHART).as_posix() for path in [*CHART.glob("ci/*.yaml"), *CHART.glob("examples/*.yaml")])


def helm(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs Helm; it knows of no cluster unless it is told."""
    nowhere = {"KUBECONFIG": os.devnull, **environment}
    return subprocess.run(
        [os.environ["HELM"], *arguments], capture_output=True, text=True, env={**os.environ, **nowhere}
    )


class Release:
    """The objects of a release."""

    def __init__(self, objects: list[dict]):
        self.objects = objects

    def all(self, kind: str) -> list[dict]:
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> dict:
        found = [item for item in self.all(kind) if item["metadata"]["name"].endswith(suffix)]
        assert len(found) == 1, f"{len(found)} objects of kind {kind} end with {suffix!r}"
        return found[0]

    @property
    def deployment(self) -> dict:
        return self.one("Deployment")

    @property
    def pod(self) -> dict:
        return self.deployment["spec"]["template"]

    @property
    def server(self) -> dict:
        """The server's container."""
        (found,) = [item for item in self.pod["spec"]["containers"] if item["name"] == "fanfare"]
        return found

    @property
    def config(self) -> dict:
        """fanfare.toml, read."""
        (text,) = [text for (_, key), text in self.settings().items() if key == "fanfare.toml"]
        return tomllib.loads(text)

    def settings(self) -> dict[tuple[str, str], str]:
        """Every value of the chart's ConfigMaps by the ConfigMap's name and key."""
        return {
            (item["metadata"]["name"], key): text
            for item in self.all("ConfigMap")
            for key, text in item["data"].items()
        }

    def secrets(self) -> dict[tuple[str, str], str]:
        """Every value of the chart's own Secrets by the Secret's name and key."""
        return {
            (secret["metadata"]["name"], key): base64.b64decode(value).decode()
            for secret in self.all("Secret")
            for key, value in secret["data"].items()
        }


@cache
def render(case: str | None = None, kubernetes: str = NEW, name: str = "demo", **values) -> Release:
    """The release of a values file; `values` are more, with __ in the place of dots and JSON for what is no text."""
    arguments = ["template", name, str(CHART), "--kube-version", kubernetes]
    if case:
        arguments += ["--values", str(CHART / case)]
    for path, value in values.items():
        arguments += ["--set-json", f"{path.replace('__', '.')}={value}"]
    done = helm(*arguments)
    assert done.returncode == 0, done.stderr
    return Release([item for item in yaml.safe_load_all(done.stdout) if item])


def environment(release: Release, container: dict, existing: dict[tuple[str, str], str]) -> dict[str, str]:
    """The environment that a kubelet would give to the container. `existing` are values of Secrets that are there."""
    secrets = {**release.secrets(), **existing}
    found: dict[str, str] = {}
    for variable in container["env"]:
        if "valueFrom" in variable:
            reference = variable["valueFrom"]["secretKeyRef"]
            found[variable["name"]] = secrets[reference["name"], reference["key"]]
        else:
            # As Kubernetes does, from what comes before.
            found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], variable["value"])
    return found


def files(release: Release, existing: dict[tuple[str, str], str]) -> dict[str, str]:
    """The files that a kubelet would give to the server by their paths, from ConfigMaps and Secrets."""
    mounts = {mount["name"]: mount["mountPath"] for mount in release.server["volumeMounts"]}
    found = {}
    for volume in release.pod["spec"]["volumes"]:
        sources = volume.get("projected", {}).get("sources", [])
        if "secret" in volume:
            sources = [{"secret": {"name": volume["secret"]["secretName"], "items": volume["secret"]["items"]}}]
        for source in sources:
            texts = {**release.secrets(), **existing, **release.settings()}
            (reference,) = source.values()
            for item in reference["items"]:
                path = f"{mounts[volume['name']]}/{item['path']}"
                found[path] = texts[reference["name"], item["key"]]
    return found


def write(found: dict[str, str], root: Path) -> Path:
    """Writes the files below `root`, with paths that lead there, and returns the configuration's."""
    for path, text in found.items():
        place = root / path.removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace('"/etc/', f'"{root}/etc/'))
    return root / "etc/fanfare/fanfare.toml"


def json_schema(kind: str) -> dict:
    """Our schema of a resource that is not Kubernetes' own."""
    return json.loads((Path(__file__).parent / "schemas" / f"{kind}.json").read_text())
