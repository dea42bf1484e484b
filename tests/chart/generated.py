"""What the chart has from elsewhere: the settings in values.schema.json, and the table of values in README.md.

Usage: FANFARE_BIN=… tests/chart/run --write

Without --write a test compares what is there with what would be made.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "fanfare"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
TABLE_BEGIN = "<!-- values: made by tests/chart/run --write -->\n"
TABLE_END = "<!-- end of values -->\n"

TEXTS = {"type": "array", "items": {"type": "string"}}
PAIR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["key", "secret"],
    "properties": {"key": {"type": "string", "minLength": 1}, "secret": {"type": "string", "minLength": 1}},
}
WEBHOOK = {
    "type": "object",
    "additionalProperties": False,
    "required": ["url"],
    "properties": {
        "url": {"type": "string", "pattern": "^https?://"},
        "events": TEXTS,
        "channel_prefixes": TEXTS,
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
# Lists of the sample that are not lists of texts.
BLOCKS = {
    "keys": {"type": "array", "minItems": 1, "items": PAIR},
    "webhooks": {"type": "array", "items": WEBHOOK},
}


def schema() -> str:
    """values.schema.json with every setting that the server knows."""
    sample = subprocess.run(
        [os.environ["FANFARE_BIN"], "config", "default"], check=True, capture_output=True, text=True
    ).stdout
    sections = tomllib.loads(sample)
    (app,) = sections.pop("apps")
    meanings = {}
    for section, name, meaning in settings_of(sample):
        meanings[section, name] = meaning
    document = json.loads(SCHEMA.read_text())
    document["definitions"]["settings"] = block(
        {
            section: block({name: setting(value, meanings[section, name]) for name, value in settings.items()})
            for section, settings in sections.items()
        }
    )
    document["definitions"]["app"] = block(
        {name: BLOCKS.get(name) or setting(value, meanings["apps", name]) for name, value in app.items()},
        required=["id", "keys"],
    )
    return pretty(document) + "\n"


def settings_of(sample: str):
    """Section, name and meaning of each setting: the comment above it."""
    section, comment = "", []
    for line in sample.splitlines():
        if heading := re.fullmatch(r"\[+(\w+)\]+", line):
            section, comment = heading[1], []
        elif line.startswith("# "):
            comment.append(line[2:].strip())
        elif name := re.match(r"(\w+) = ", line):
            yield section, name[1], " ".join(comment)
            comment = []
        else:
            comment = []


def block(properties: dict, **more) -> dict:
    return {"type": "object", "additionalProperties": False, **more, "properties": properties}


def setting(value, meaning: str) -> dict:
    # A bool is an int in Python, so it is asked for first.
    if isinstance(value, bool):
        shape = {"type": "boolean"}
    elif isinstance(value, int):
        shape = {"type": "integer", "minimum": 0}
    elif isinstance(value, str):
        shape = {"type": "string"}
    elif isinstance(value, list):
        shape = TEXTS
    else:
        raise TypeError(f"no shape is known for {value!r}")
    return {**shape, "description": meaning}


def pretty(value, indent: int = 0) -> str:
    """JSON in which what fits in a line is in one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= 110 or not isinstance(value, (dict, list)):
        return line
    deeper = " " * (indent + 2)
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {pretty(item, indent + 2)}" for key, item in value.items()]
    else:
        items = [pretty(item, indent + 2) for item in value]
    left, right = "{}" if isinstance(value, dict) else "[]"
    return left + "\n" + ",\n".join(deeper + item for item in items) + "\n" + " " * indent + right


def readme() -> str:
    """README.md with a row for each value that values.yaml explains."""
    before, _, rest = README.read_text().partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    rows = ["| value | default | meaning |", "| --- | --- | --- |"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path, meaning in meanings_of_values():
        default = values
        for name in path.split("."):
            default = default[name]
        shown = json.dumps(default).replace("|", "\\|")
        rows.append(f"| `{path}` | `{shown}` | {meaning.replace('|', chr(92) + '|')} |")
    return before + TABLE_BEGIN + "\n".join(rows) + "\n" + TABLE_END + after


def meanings_of_values() -> list[tuple[str, str]]:
    """Path and meaning of each value with a comment that begins with "# --"."""
    found, path, comment = [], [], None
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            comment = text.removeprefix("# -- ")
        elif text.startswith("# ") and comment is not None:
            comment += " " + text.removeprefix("# ")
        elif key := re.match(r"( *)(\w+):", line):
            path = [*path[: len(key[1]) // 2], key[2]]
            if comment is not None:
                found.append((".".join(path), comment))
            comment = None
        else:
            comment = None
    return found


def undocumented() -> list[str]:
    """Values that neither have a meaning nor belong to one that has."""
    known = {path for path, _ in meanings_of_values()}

    def missing(value, path):
        if ".".join(path) in known:
            return
        if isinstance(value, dict) and value:
            for name, item in value.items():
                yield from missing(item, [*path, name])
        else:
            yield ".".join(path)

    return list(missing(yaml.safe_load((CHART / "values.yaml").read_text()), []))


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    SCHEMA.write_text(schema())
    README.write_text(readme())
