"""The pages for users and the fenced blocks in them.

A comment on the line above a block says what no reader needs to see:

    <!-- test: WORD… -->      how it is tested, if its language alone does not tell: see test_blocks.py
    <!-- not run: REASON -->  why it cannot be run here
"""

import pathlib
import re
from typing import NamedTuple

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")), REPOSITORY / ".github/CONTRIBUTING.md"]

FENCE = re.compile(r"^( *)```(\S*)$")
COMMENT = re.compile(r"^ *<!-- (test|not run): (.+) -->$")


class Block(NamedTuple):
    """One fenced block: `line` is where it begins, `options` are the words NAME=VALUE of its comment, others `True`."""

    page: pathlib.Path
    line: int
    language: str
    text: str
    options: dict
    not_run: str

    @property
    def name(self):
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}:{self.language}"


def blocks_of(page):
    """Every block of a page, in order."""
    found, opened, above = [], None, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened = (number, fence[1], fence[2], above, [])
        elif opened is not None and line == f"{opened[1]}```":
            begin, indent, language, comment, lines = opened
            text = "".join(f"{inner.removeprefix(indent)}\n" for inner in lines)
            found.append(Block(page, begin, language, text, *remarks(comment)))
            opened = None
        elif opened is not None:
            opened[4].append(line)
        above = line
    assert opened is None, f"{page}:{opened[0]} is not closed"
    return found


def remarks(comment):
    match = COMMENT.match(comment)
    if not match:
        return {}, ""
    if match[1] == "not run":
        return {}, match[2]
    words = (word.partition("=") for word in match[2].split())
    return {name: value if equals else True for name, equals, value in words}, ""


def all_blocks():
    return [block for page in PAGES for block in blocks_of(page)]
