"""Record of a matrix → one page on which every engine stands beside the others, row by row."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.catalogue import Catalogue
from conformance.matrix.record import WORST_FIRST, CellResult, MatrixRecord
from conformance.verdicts import Rehearsed
from reports.scorecard import page_template
from reports.summary import GLYPH
from reports.text import plural, visible

PAGE = "matrix.html"
MOST_COLUMNS = 200
_RANK = {code: place for place, code in enumerate(WORST_FIRST)}
_ABSENT = ("UNTESTED", "")


def render_matrix(record: MatrixRecord, catalogue: Catalogue) -> str:
    """The page; everything foreign on it is escaped and nothing is loaded from elsewhere."""
    settled = [cell for cell in record.cells if cell.verdicts]
    columns = _columns(record.cells)
    return page_template("matrix.html.jinja").render(
        cells=[_shown(cell) for cell in columns],
        headline=f"{plural(len(record.cells), 'trial')}, {len(record.cells) - len(settled)} without a whole record",
        problems=_problems(record),
        glyphs=[(verdict.value, sign) for verdict, sign in GLYPH.items()],
        left_out=len(record.cells) - len(columns),
        table=[(row, [_mark(cell, row) for cell in columns]) for row in record.rows],
        tests={row.id: row.test for row in catalogue.rows},
    )


def _columns(cells: Sequence[CellResult]) -> list[CellResult]:
    """All cells where a page can hold them; else the worst ones, in the matrix's order."""
    if len(cells) <= MOST_COLUMNS:
        return list(cells)
    worst = sorted(range(len(cells)), key=lambda place: (_RANK.get(cells[place].exit_code, len(_RANK)), place))
    return [cells[place] for place in sorted(worst[:MOST_COLUMNS])]


def _mark(cell: CellResult, row: str) -> tuple[str, str]:
    verdict = cell.verdicts.get(row)
    if verdict is None:
        return _ABSENT
    rehearsed = cell.rehearsed.get(row)
    if rehearsed is Rehearsed.FAILED:
        return "FALSIFIED", "f"
    return verdict.value, "s" if rehearsed else GLYPH[verdict]


def _problems(record: MatrixRecord) -> list[str]:
    """Why columns may not be compared."""
    settled = [cell for cell in record.cells if cell.verdicts]
    problems = []
    if len({cell.thresholds_sha256 for cell in settled}) > 1:
        problems.append("The trials were judged by different thresholds.")
    if len({cell.catalogue_sha256 for cell in settled}) > 1:
        problems.append("The trials were made with different catalogues.")
    if any(cell.rehearsal for cell in settled):
        problems.append("Rehearsals on the CPU are among them: they show nothing about the GPU.")
    return problems


def _shown(cell: CellResult) -> dict[str, object]:
    texts = {field: visible(getattr(cell, field)) for field in ("name", "engine", "model", "device", "cause")}
    return {**texts, "exit_code": int(cell.exit_code)}
