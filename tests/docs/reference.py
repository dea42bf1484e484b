#!/usr/bin/env python3
"""Makes the tables of docs/configure.md from config/default.toml, which a test keeps equal to the program.

Usage: tests/docs/reference.py    writes docs/configure.md anew
"""

import pathlib
import re

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs/configure.md"
DEFAULTS = REPOSITORY / "config/default.toml"
BEGIN, END = "<!-- reference: tests/docs/reference.py -->\n", "<!-- end of the reference -->\n"


def tables():
    """A heading and a table for each section."""
    made, meaning = [], []
    for line in DEFAULTS.read_text(encoding="utf-8").splitlines():
        if section := re.fullmatch(r"\[+(\w+)\]+", line):
            made.append(f"\n### [{section[1]}]\n\n| setting | default | meaning |\n| --- | --- | --- |\n")
            name, meaning = section[1], []
        elif line.startswith("#"):
            meaning.append(line.removeprefix("#").strip())
        elif setting := re.fullmatch(r"(\w+) = (.+)", line):
            text = " ".join(meaning)
            if setting[1] == "webhooks":
                text = "Receivers of webhooks, a block `[[apps.webhooks]]` for each: [above](#webhooks)."
            made.append(f"| `{setting[1]}` | `{setting[2]}` | {text.replace('|', chr(92) + '|')} |\n")
            meaning = []
        else:
            meaning = []
    assert name == "apps"
    return "".join(made).lstrip("\n").replace("### [apps]", "### [[apps]]")


def with_tables(page):
    """The page with the tables as they must be."""
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n{tables()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
