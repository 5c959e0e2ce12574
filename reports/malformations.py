"""Readers by malformation class: one self-contained page with the smallest file of each finding in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import msgspec

from conformance.observations import CaseFailure, Cases
from conformance.record import Record

MAX_SHOWN_BYTES = 64 * 1024
COLOURS = {
    "right": "#d7f0dc",
    "crash": "#e0b0e0",
    "hang": "#e0b0e0",
    "misread": "#f8d0d0",
    "wrong_accept": "#f8d0d0",
    "wrong_reject": "#fdeec2",
}
_STYLE = (
    "body{font:14px system-ui;margin:2em}table{border-collapse:collapse;margin:1em 0}pre{white-space:pre-wrap}"
    "th,td{border:1px solid #bbb;padding:3px 8px;text-align:left;vertical-align:top;max-width:24em;"
    "overflow-wrap:anywhere}"
)


class Tried(msgspec.Struct, frozen=True):
    """How one reader fared in one class: distinct files tried, and what went wrong first."""

    row: str
    files: int
    failure: CaseFailure | None = None


def tried_classes(record: Record) -> dict[str, Tried]:
    """Every class that a reader was tried on, under its name."""
    found: dict[str, Tried] = {}
    for row in record.rows:
        for observation in row.observations:
            if isinstance(observation, Cases) and not observation.hardening:
                failures = {failure.case_class: failure for failure in reversed(observation.failures)}
                names = [name for name in observation.ran if observation.ran[name]]
                found |= {name: Tried(row.id, observation.ran[name], failures.get(name)) for name in names}
    return found


def malformations(readers: Sequence[tuple[Record, Path]]) -> str:
    """The page.

    Args:
        readers: Each record, and the directory that holds it: the smallest files lie in `evidence/` there.
    """
    tried = [(record, directory, tried_classes(record)) for record, directory in readers]
    names = sorted({name for _, _, classes in tried for name in classes})
    heads = "".join(f"<th>{escape(record.header.engine.name)}</th>" for record, _, _ in tried)
    lines = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(_cell(classes.get(name), where) for _, where, classes in tried)}</tr>"
        for name in names
    )
    totals = "".join(f"<td>{_totals(classes)}</td>" for _, _, classes in tried)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Readers and malformations</title>"
        f"<style>{_STYLE}</style><h1>Readers and malformation classes</h1><p>Each cell: distinct files of the class "
        "that were read as the format demands, or what went wrong first, with the smallest file that shows it. A class "
        "that ends with a finding tries no more files. Empty: the class was not reached.</p>"
        f"<table><tr><th></th>{heads}</tr><tr><th>classes</th>{totals}</tr>{lines}</table></html>\n"
    )


def _totals(classes: dict[str, Tried]) -> str:
    count: dict[str, int] = {}
    for one in classes.values():
        kind = one.failure.how if one.failure else "right"
        count[kind] = count.get(kind, 0) + 1
    return "<br>".join(f"{escape(kind)}: {number}" for kind, number in sorted(count.items()))


def _cell(one: Tried | None, directory: Path) -> str:
    if one is None:
        return "<td></td>"
    if one.failure is None:
        return f'<td style="background:{COLOURS["right"]}">{one.files}</td>'
    colour = COLOURS.get(one.failure.how, COLOURS["misread"])
    told = f"<p>{escape(one.row)}: {escape(one.failure.detail)}</p>{_file(one, directory)}"
    return f'<td style="background:{colour}"><details><summary>{escape(one.failure.how)}</summary>{told}</details></td>'


def _file(one: Tried, directory: Path) -> str:
    """The smallest file, to look at and to take away; its hash alone where it is not beside the record."""
    assert one.failure is not None
    path = directory / "evidence" / one.row / one.failure.file
    if not one.failure.file or not path.is_file() or path.stat().st_size > MAX_SHOWN_BYTES:
        return f"<p><code>{escape(one.failure.sha256)}</code></p>"
    raw = path.read_bytes()
    shown = raw[:400].decode("latin-1").encode("unicode_escape").decode()
    link = f"data:application/octet-stream;base64,{base64.b64encode(raw).decode()}"
    return f'<pre>{escape(shown)}</pre><p><a download="{escape(path.name)}" href="{link}">{len(raw)} bytes</a></p>'
