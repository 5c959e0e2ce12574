"""What changed since a baseline, and what other thresholds would change: as text, and as a section of the page."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from conformance.comparison import Change, Comparison, standing
from conformance.record import Record
from conformance.rejudging import Rejudged
from reports.extra import Extra, row_link, table
from reports.text import one_line, plural

_BAD = {Change.NEW_FAILURE, Change.REMOVED, Change.NEWLY_UNTESTED}
_NOTE, _MOST_ROWS = 160, 200


def comparison_text(comparison: Comparison) -> str:
    """Every change on a line of its own, worst first, after what makes the two incomparable."""
    lines = [f"not comparable in {words}" for words in comparison.unlike]
    lines += [
        f"{c.change.value:17} {one_line(c.row, 20):12} {c.before} -> {c.after}  {one_line(c.note, _NOTE)}".rstrip()
        for c in comparison.changes
    ]
    return "\n".join(lines or [f"no row differs from {one_line(comparison.baseline)}"]) + "\n"


def rejudged_text(before: Record, after: Record, rows: Sequence[Rejudged]) -> str:
    """Which verdicts other thresholds would change, and the exit code before and after."""
    lines = [
        f"thresholds {before.header.thresholds_sha256[:12]} -> {after.header.thresholds_sha256[:12]}",
        f"{plural(len(rows), 'row')} of {len(after.rows)} come out differently; nothing was measured again",
    ]
    lines += [
        f"{r.after.id:12} {standing(r.before)} -> {standing(r.after)}  {one_line(r.after.reason, _NOTE)}".rstrip()
        for r in rows
    ]
    if before.footer and after.footer:
        lines.append(f"exit code {int(before.footer.exit_code)} -> {int(after.footer.exit_code)}")
    return "\n".join(lines) + "\n"


def comparison_section(comparison: Comparison) -> Extra:
    """The section "Against the baseline"."""
    head = Markup("<p>Compared row by row with <bdi>{}</bdi>; totals are never compared.</p>").format(
        one_line(comparison.baseline, 80)
    )
    if comparison.unlike:
        items = Markup("").join(Markup("<li>{}</li>").format(one_line(words)) for words in comparison.unlike)
        head += Markup(
            '<p class="caution">Not comparable for speed and memory, because these differ:</p><ul>{}</ul>'
        ).format(items)
    if not comparison.changes:
        return Extra("baseline", "Against the baseline", head + Markup("<p>No row differs.</p>"))
    rows: list[list[Markup | str]] = [
        [
            row_link(c.row) if c.change is not Change.REMOVED else c.row,
            Markup('<span class="{}">{}</span>').format("bad" if c.change in _BAD else "", c.change.value),
            f"{c.before} → {c.after}",
            one_line(c.note, _NOTE),
        ]
        for c in comparison.changes[:_MOST_ROWS]
    ]
    body = table(["row", "change", "from → to", "why"], rows, "Differences from the baseline")
    return Extra("baseline", "Against the baseline", head + body)
