"""Records of several engines side by side: one self-contained page, engines by checks, survivors first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from conformance.catalogue import Catalogue
from conformance.comparison import unlike
from conformance.record import Record, RowResult, counts
from conformance.verdicts import Rehearsed, Verdict
from reports.scorecard import fingerprint_line, page_template
from reports.speeds import speeds
from reports.text import one_line

_FEW_ENGINES = 10
_ROOMY, _CLOSE = (20, 600), (1, 80)
"""Files of evidence and characters of a reason that a cell shows beside few engines, and beside many: fifty that fail
everything at length are still a page that a browser likes."""


class Line(msgspec.Struct, frozen=True):
    """A check with what each engine made of it; None where the engine's record does not have it."""

    id: str
    test: str
    cells: list[RowResult | None]
    differs: bool


class Column(msgspec.Struct, frozen=True):
    """An engine: its record, how its rows came out, and what makes it incomparable with the first column."""

    record: Record
    counts: dict[str, int]
    unlike: list[str]
    trustworthy: bool


def survived(record: Record) -> int:
    """How many rows were survived; an untested row counts for nothing."""
    return sum(row.verdict is Verdict.CORROBORATED for row in record.rows)


def disagree(rows: Sequence[RowResult | None]) -> bool:
    """Whether engines that were tried on a row came out differently; a rehearsal counts by how it came out."""
    return len({_came_out(row) for row in rows if row is not None and _tried(row)} - {Verdict.ERROR}) > 1


def comparison(records: Sequence[Record], catalogue: Catalogue) -> str:
    """The page: the engines, then every row that some engine was tried on, with the reason one click away."""
    ordered = sorted(records, key=lambda record: (-survived(record), record.header.engine.name))
    tests = {row.id: row.test for row in catalogue.rows}
    ids = dict.fromkeys([*tests, *(row.id for record in ordered for row in record.rows)])
    by_record = [{row.id: row for row in record.rows} for record in ordered]
    lines = [_line(row, tests.get(row, ""), by_record) for row in ids]
    tried = [line for line in lines if any(cell is not None and _tried(cell) for cell in line.cells)]
    most_evidence, longest_reason = _ROOMY if len(records) <= _FEW_ENGINES else _CLOSE
    return page_template("compare.html.jinja").render(
        columns=[_column(record, ordered[0]) for record in ordered],
        speeds=[(fingerprint_line(each.records[0].header.environment), each) for each in speeds(ordered)],
        lines=tried,
        left_out=len(lines) - len(tried),
        different=sum(line.differs for line in tried),
        most_evidence=most_evidence,
        longest_reason=longest_reason,
    )


def _line(row_id: str, test: str, by_record: Sequence[Mapping[str, RowResult]]) -> Line:
    cells = [rows.get(row_id) for rows in by_record]
    return Line(row_id, test, cells, disagree(cells))


def _column(record: Record, first: Record) -> Column:
    different = [
        one_line(words, 160) for words in unlike(first.header, record.header) if not words.startswith("engine:")
    ]
    whole = record.footer is not None and record.footer.ended == "completed"
    return Column(record, counts(record.rows), different, whole)


def _tried(row: RowResult) -> bool:
    return row.verdict is not Verdict.UNTESTED or row.rehearsed is not None


def _came_out(row: RowResult) -> Verdict:
    if row.rehearsed is not None:
        return Verdict.FALSIFIED if row.rehearsed is Rehearsed.FAILED else Verdict.CORROBORATED
    return row.verdict
