"""Records of several engines side by side: one self-contained page, engines by checks, survivors first."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from conformance.record import Record, RowResult
from conformance.verdicts import Verdict
from reports.text import one_line

COLOURS = {
    Verdict.CORROBORATED: "#d7f0dc",
    Verdict.FALSIFIED: "#f8d0d0",
    Verdict.WARNING: "#fdeec2",
    Verdict.INCONCLUSIVE: "#e3e0f5",
    Verdict.UNTESTED: "#f2f2f2",
    Verdict.ERROR: "#e0b0e0",
}
_FILES, _REASON = 1, 160
"""What a cell shows of its record at most, so that fifty engines stay a page that a browser likes."""
_STYLE = (
    "body{font:14px system-ui;margin:2em}table{border-collapse:collapse;margin:1em 0}"
    "th,td{border:1px solid #bbb;padding:4px 8px;text-align:left;vertical-align:top;max-width:22em;"
    "overflow-wrap:anywhere}tr.differs th{border-left:6px solid #c60}"
)


def survived(record: Record) -> int:
    """How many rows were survived; an untested row counts for nothing."""
    return sum(row.verdict is Verdict.CORROBORATED for row in record.rows)


def disagree(rows: Sequence[RowResult]) -> bool:
    """Whether engines that were tried on a row came out differently."""
    tried = {row.verdict for row in rows if row.verdict not in {Verdict.UNTESTED, Verdict.ERROR}}
    return len(tried) > 1


def comparison(records: Sequence[Record]) -> str:
    """The page: capabilities, then every row that some engine was tried on, with the reason one click away."""
    ordered = sorted(records, key=lambda record: (-survived(record), record.header.engine.name))
    heads = "".join(f"<th>{_engine(record)}</th>" for record in ordered)
    lines = []
    for row_id in ordered[0].header.rows:
        cells = [next((row for row in one.rows if row.id == row_id), _absent(row_id)) for one in ordered]
        if any(_tried(cell) for cell in cells):
            mark = ' class="differs"' if disagree(cells) else ""
            lines.append(f"<tr{mark}><th>{escape(row_id)}</th>{''.join(map(_cell, cells))}</tr>")
    able = "".join(f"<td>{escape(', '.join(one.header.engine.capabilities)) or '—'}</td>" for one in ordered)
    body = "".join(lines)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Engines compared</title><style>{_STYLE}</style>"
        "<h1>Engines compared</h1><p>Most rows survived first. A bar on the left marks rows on which engines that were "
        "tried differ. UNTESTED is not a pass. Rows on which no engine was tried are left out.</p>"
        f"<table><tr><th></th>{heads}</tr><tr><th>capabilities</th>{able}</tr>{body}</table></html>\n"
    )


def _tried(row: RowResult) -> bool:
    return row.verdict is not Verdict.UNTESTED or row.rehearsed is not None


def _absent(row_id: str) -> RowResult:
    return RowResult(row_id, Verdict.UNTESTED, reason="not a row of this record")


def _engine(record: Record) -> str:
    engine, model = record.header.engine, record.header.model
    kind = "a rehearsal" if record.header.rehearsal else "on a GPU"
    told = f"{engine.version}, {model.name}, {kind}; {survived(record)} survived"
    return f"{escape(engine.name)}<br><small>{escape(told)}</small>"


def _cell(row: RowResult) -> str:
    label = escape(row.verdict.value + (f" (rehearsed: {row.rehearsed})" if row.rehearsed else ""))
    style = f'style="background:{COLOURS[row.verdict]}"'
    if not row.reason:
        return f"<td {style}>{label}</td>"
    evidence = "".join(f"<li>{escape(one_line(one.path, 120))} {one.sha256[:12]}</li>" for one in row.evidence[:_FILES])
    if len(row.evidence) > _FILES:
        evidence += f"<li>… and {len(row.evidence) - _FILES} more in the record</li>"
    command = f"<p><code>{escape(row.reproduce)}</code></p>" if row.reproduce else ""
    told = f"{escape(one_line(row.reason, _REASON))}{command}<ul>{evidence}</ul>"
    return f"<td {style}><details><summary>{label}</summary>{told}</details></td>"
