"""Engines side by side: every cell is a record's own verdict, and difference is marked."""

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from conformance.cli import app
from conformance.record import read_record
from conformance.verdicts import ExitCode, Verdict
from reports.compare import comparison, disagree, survived

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "engines"
PATHS = sorted(RESULTS.glob("*/record.jsonl"))


@pytest.fixture(scope="module")
def records():
    return [read_record(path) for path in PATHS]


def test_the_engine_that_survives_most_comes_first(records):
    page = comparison(records)
    best, worst = max(records, key=survived), min(records, key=survived)

    assert page.index(f"<th>{best.header.engine.name}<") < page.index(f"<th>{worst.header.engine.name}<")


def test_every_tried_row_has_a_cell_for_every_engine(records):
    page = comparison(records)
    line = next(line for line in page.split("<tr") if "<th>F-PARSE-041</th>" in line)

    assert line.count("<td") == len(records)
    assert 'class="differs"' in line
    assert "<th>F-CUDA-011</th>" not in page


def test_engines_that_were_not_tried_do_not_disagree(records):
    row = next(row for row in records[0].rows if row.verdict is Verdict.CORROBORATED)

    assert not disagree([row, msgspec.structs.replace(row, verdict=Verdict.UNTESTED)])
    assert disagree([row, msgspec.structs.replace(row, verdict=Verdict.FALSIFIED)])


def test_what_an_engine_says_is_text(records):
    record = records[0]
    rows = [msgspec.structs.replace(row, reason="<script>alert(1)</script>") for row in record.rows]

    assert "<script>" not in comparison([msgspec.structs.replace(record, rows=rows)])


def test_the_command_writes_one_page(tmp_path):
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["compare", *map(str, PATHS[:2]), "--out", str(out)])

    assert done.exit_code == ExitCode.OPEN
    assert "Engines compared" in out.read_text()


def test_a_record_that_is_none_is_a_usage_error(tmp_path):
    broken = tmp_path / "record.jsonl"
    broken.write_text("no record\n")
    done = CliRunner().invoke(app, ["compare", str(broken), "--out", str(tmp_path / "page.html")])

    assert done.exit_code == ExitCode.USAGE
