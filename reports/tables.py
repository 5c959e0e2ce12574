"""Tables that other tools leave as JSON; the definition of done, in which a gate without a value is not measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from markupsafe import Markup

from reports.extra import Extra, table
from reports.text import one_line

_CELL = 160
Kind = TypeVar("Kind")


class BrokenTable(Exception):
    """A JSON file that is not the table it should be."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path = path
        super().__init__(f"{path}: {cause}")


class Done(msgspec.Struct, frozen=True):
    """One gate of the definition of done, as it was measured."""

    name: str
    command: str = ""
    value: str | float | None = None
    threshold: str | float | None = None
    verdict: str = ""


def read_done(path: Path) -> tuple[Done, ...]:
    """Read a done.json: a list of objects with name, command, value, threshold, verdict.

    Raises:
        BrokenTable: it is something else.
        OSError: it cannot be read.
    """
    return tuple(read_table(path, list[Done]))


def read_table(path: Path, kind: type[Kind]) -> Kind:
    """A JSON file as the given type.

    Raises:
        BrokenTable: it is something else.
        OSError: it cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenTable(path, str(error)) from error


def done_section(done: Sequence[Done] | None) -> Extra:
    """The definition of done, gate by gate."""
    title = "Definition of done"
    if done is None:
        return Extra("done", title, Markup("<p>Not measured: no table of its gates was given to this page.</p>"))
    rows: list[list[Markup | str]] = [
        [one_line(d.name, 80), _verdict(d), _number(d.value), _number(d.threshold),
         Markup("<code>{}</code>").format(one_line(d.command, _CELL))]
        for d in done
    ]  # fmt: skip
    return Extra("done", title, table(["gate", "verdict", "value", "threshold", "command"], rows, title))


def _verdict(done: Done) -> Markup:
    if done.value is None or not done.verdict:
        return Markup('<span class="quiet">not measured</span>')
    css = "" if done.verdict.lower() in {"met", "pass", "passed", "ok"} else "bad"
    return Markup('<b class="{}">{}</b>').format(css, one_line(done.verdict, 40))


def _number(value: str | float | None) -> str:
    return "" if value is None else one_line(f"{value:.6g}" if isinstance(value, float) else str(value), 80)
