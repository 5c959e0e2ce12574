"""Pages for many engines stay small: fifty engines that fail everything at length, a matrix of ten thousand cells."""

from pathlib import Path

import msgspec

from conformance.catalogue import load_catalogue
from conformance.matrix.record import CellResult, MatrixRecord
from conformance.record import Evidence, read_record
from conformance.verdicts import ExitCode, Verdict
from reports.compare import comparison
from reports.matrix import MOST_COLUMNS, render_matrix

RECORD = Path(__file__).parents[2] / "docs" / "results" / "rehearsal" / "record.jsonl"
MOST_BYTES = 3_000_000


def test_fifty_engines_that_fail_every_row_at_length_are_three_megabytes_at_most():
    record = read_record(RECORD)
    evidence = [Evidence(f"evidence/kept/{number:04}.safetensors", "0" * 64, 1) for number in range(300)]
    rows = [
        msgspec.structs.replace(row, verdict=Verdict.FALSIFIED, reason="<wrong> & " * 500, evidence=evidence)
        for row in record.rows
    ]
    page = comparison([msgspec.structs.replace(record, rows=rows)] * 50, load_catalogue())
    assert len(page.encode()) <= MOST_BYTES
    assert page.count("<details>") == 5000
    assert "… and 299 more in the record" in page


def test_a_page_of_ten_thousand_cells_shows_the_worst_and_says_what_it_leaves_out():
    rows = [row.id for row in load_catalogue().rows]
    seen = dict.fromkeys(rows, Verdict.WARNING)
    cells = [
        CellResult(f"c{number}", f"engine {number}", "m", "here", ExitCode.OPEN, verdicts=seen)
        for number in range(10_000)
    ]
    cells[7777] = msgspec.structs.replace(cells[7777], exit_code=ExitCode.HARNESS, cause="killed", verdicts={})
    page = render_matrix(MatrixRecord("0", rows, cells, ExitCode.HARNESS), load_catalogue())
    assert len(page.encode()) <= MOST_BYTES
    assert f"{10_000 - MOST_COLUMNS} cells are not on this page" in page
    assert "engine 7777" in page
    assert page.count("<td ") == MOST_COLUMNS * 100
