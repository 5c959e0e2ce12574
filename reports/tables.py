"""Tables that other tools leave as JSON; the definition of done, in which a gate without a value is not measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from markupsafe import Markup

from conformance.done.gates import DoneLine, Standing
from conformance.reported import Reported
from reports.extra import Extra, table
from reports.text import one_line

_CELL = 160
Kind = TypeVar("Kind")


class BrokenTable(Reported):
    """A JSON file that is not the table it should be."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path = path
        super().__init__(f"{path}: {cause}")


def read_done(path: Path) -> tuple[DoneLine, ...]:
    """Read a done.json: the lines that `falsify done` wrote.

    Raises:
        BrokenTable: it is something else.
        OSError: it cannot be read.
    """
    return tuple(read_table(path, list[DoneLine]))


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


def done_section(done: Sequence[DoneLine] | None) -> Extra:
    """The definition of done, gate by gate."""
    title = "Definition of done"
    if done is None:
        return Extra("done", title, Markup("<p>Not measured: no table of its gates was given to this page.</p>"))
    rows: list[list[Markup | str]] = [
        [one_line(d.name, 80), _verdict(d), _number(d.value), one_line(d.threshold, 80),
         Markup("<code>{}</code>").format(one_line(d.command, _CELL)), one_line(d.reason, _CELL)]
        for d in done
    ]  # fmt: skip
    return Extra("done", title, table(["gate", "verdict", "value", "threshold", "command", "reason"], rows, title))


def _verdict(line: DoneLine) -> Markup:
    if line.value is None:
        word = "not asked" if line.verdict is Standing.NOT_ASKED else "not measured"
        return Markup('<span class="quiet">{}</span>').format(word)
    css = {Standing.MET: "", Standing.WARNING: "caution"}.get(line.verdict, "bad")
    return Markup('<b class="{}">{}</b>').format(css, one_line(line.verdict, 40))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
