"""Markdown pieces, and the marked blocks of hand-written pages that are filled in from the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

Blocks = Mapping[str, Callable[[], str]]

_BLOCK = re.compile(r"<!-- generated: (?P<name>[a-z0-9-]+) -->\n.*?<!-- end -->", re.DOTALL)


class UnknownBlock(Exception):
    """A page marks a block that nothing generates."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(f"no block {name!r}; there are {', '.join(sorted(known))}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, one line a row, without a newline at its end."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def cell(text: str) -> str:
    """Text that stays inside one cell."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """Text as inline code; nothing stays nothing."""
    return f"`{text}`" if text else ""


def fenced(text: str, language: str) -> str:
    """A code block."""
    return f"```{language}\n{text.rstrip()}\n```"


def fill(page: str, blocks: Blocks) -> str:
    """The page with every marked block replaced by what is generated now.

    Raises:
        UnknownBlock: a block has no generator.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in blocks:
            raise UnknownBlock(name, blocks)
        return f"<!-- generated: {name} -->\n{blocks[name]()}\n<!-- end -->"

    return _BLOCK.sub(replaced, page)


def block_names(page: str) -> list[str]:
    """The blocks that a page marks, in its order."""
    return [match["name"] for match in _BLOCK.finditer(page)]
