"""Two tables that other tools leave as JSON and the page shows: what each planted fault kills, and what is done.

Neither is believed further than it speaks: a fault that killed nothing is shown as survived, a gate without a value
as not measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from markupsafe import Markup

from conformance.catalogue import Catalogue
from reports.extra import Extra, row_link, table
from reports.text import listed, one_line, plural

_CELL = 160
Kind = TypeVar("Kind")


class BrokenTable(Exception):
    """A JSON file that is not the table it should be."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path = path
        super().__init__(f"{path}: {cause}")


class Kill(msgspec.Struct, frozen=True):
    """One planted fault: the rows that must fail of it, those of them that did, and others that failed, too."""

    fault: str
    what: str = ""
    machine: str = ""
    expected: tuple[str, ...] = ()
    killed_by: tuple[str, ...] = ()
    collateral: tuple[str, ...] = ()

    @property
    def specific(self) -> tuple[str, ...]:
        """The expected rows that killed it; only these prove a check."""
        return tuple(row for row in self.expected if row in self.killed_by)


class Done(msgspec.Struct, frozen=True):
    """One gate of the definition of done, as it was measured."""

    name: str
    command: str = ""
    value: str | float | None = None
    threshold: str | float | None = None
    verdict: str = ""


def read_kills(path: Path) -> tuple[Kill, ...]:
    """Read a severity.json: a list of objects with fault, what, machine, expected, killed_by, collateral.

    Raises:
        BrokenTable: it is something else.
        OSError: it cannot be read.
    """
    return _read(path, Kill)


def read_done(path: Path) -> tuple[Done, ...]:
    """Read a done.json: a list of objects with name, command, value, threshold, verdict.

    Raises:
        BrokenTable: it is something else.
        OSError: it cannot be read.
    """
    return _read(path, Done)


def _read(path: Path, kind: type[Kind]) -> tuple[Kind, ...]:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[kind])  # type: ignore[valid-type]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenTable(path, str(error)) from error
    return tuple(found)


def kill_section(kills: Sequence[Kill] | None, catalogue: Catalogue) -> Extra:
    """The kill matrix, and how many checks are proven able to fail."""
    title = "Can these checks fail?"
    if kills is None:
        return Extra("kills", title, Markup("<p>Not measured: no table of planted faults was given to this page.</p>"))
    ids = [row.id for row in catalogue.rows]
    proven = {row for kill in kills for row in kill.specific}
    unproven = [row for row in ids if row not in proven]
    machines = listed(sorted({kill.machine for kill in kills if kill.machine}))
    head = Markup("<p><b>{} of {} checks proven able to fail</b> by {}{}.</p>").format(
        len(proven & set(ids)), len(ids), plural(len(kills), "planted fault"), f", on {machines}" if machines else ""
    )
    if unproven:
        head += Markup("<details><summary>{} without a killing fault</summary><p>{}</p></details>").format(
            plural(len(unproven), "check"), Markup(", ").join(map(row_link, unproven))
        )
    rows: list[list[Markup | str]] = [
        [one_line(kill.fault, 60), one_line(kill.what, _CELL), _outcome(kill), _rows(kill.expected, ids),
         _rows(kill.collateral, ids), one_line(kill.machine, 40)]
        for kill in kills
    ]  # fmt: skip
    columns = ["planted fault", "what is wrong", "outcome", "must fail", "failed, too", "machine"]
    body = Markup("<details><summary>The kill matrix</summary>{}</details>").format(
        table(columns, rows, "Kill matrix: planted faults and the checks that they fail")
    )
    return Extra("kills", title, head + body)


def _outcome(kill: Kill) -> Markup:
    if kill.expected and len(kill.specific) == len(kill.expected):
        return Markup("✓ killed")
    if kill.specific:
        return Markup('<span class="caution">killed by {} of {}</span>').format(len(kill.specific), len(kill.expected))
    return Markup('<strong class="bad">✗ survived</strong>')


def _rows(rows: Iterable[str], known: Sequence[str]) -> Markup:
    shown = list(rows)
    links = [row_link(row) if row in known else Markup("{}").format(one_line(row, 40)) for row in shown[:12]]
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""  # noqa: PLR2004
    return Markup(", ").join(links) + more


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
