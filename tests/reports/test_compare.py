"""Engines side by side: every cell is a record's own verdict, and difference is marked."""

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from conformance.catalogue import load_catalogue
from conformance.cli import app
from conformance.record import Record, read_record
from conformance.verdicts import ExitCode, Verdict
from reports.compare import comparison, disagree, survived

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "engines"
CATALOGUE = load_catalogue()
PATHS = sorted(RESULTS.glob("*/record.jsonl"))


@pytest.fixture(scope="module")
def records():
    return [read_record(path) for path in PATHS]


def test_the_engine_that_survives_most_comes_first(records):
    page = comparison(records, CATALOGUE)
    best, worst = max(records, key=survived), min(records, key=survived)

    assert page.index(f"<bdi>{best.header.engine.name}<") < page.index(f"<bdi>{worst.header.engine.name}<")


def test_every_tried_row_has_a_cell_for_every_engine(records):
    page = comparison(records, CATALOGUE)
    line = next(line for line in page.split("<tr") if 'id="F-PARSE-041"' in line)

    assert line.count("<td") == len(records)
    assert 'class="differs"' in line
    assert 'id="F-CUDA-011"' not in page


def test_engines_that_were_not_tried_do_not_disagree(records):
    row = next(row for row in records[0].rows if row.verdict is Verdict.CORROBORATED)

    assert not disagree([row, msgspec.structs.replace(row, verdict=Verdict.UNTESTED)])
    assert disagree([row, msgspec.structs.replace(row, verdict=Verdict.FALSIFIED)])


def test_what_an_engine_says_is_text(records):
    record = records[0]
    hostile = "<script>alert(1)</script>\u202e"
    rows = [msgspec.structs.replace(row, reason=hostile, reproduce=hostile) for row in record.rows]

    page = comparison([msgspec.structs.replace(record, rows=rows)], CATALOGUE)

    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in page


def test_what_makes_engines_incomparable_is_said_and_a_cut_record_is_marked(records):
    header = msgspec.structs.replace(records[0].header, trial_id="x", thresholds_sha256="0" * 64)
    other = Record(header, records[0].rows, None)

    page = comparison([records[0], other], CATALOGUE)

    assert f"thresholds: {records[0].header.thresholds_sha256[:12]} and {'0' * 12}" in page
    assert page.count("incomplete record") == 1


def test_a_row_that_a_record_does_not_have_is_no_verdict(records):
    shorter = Record(records[1].header, records[1].rows[:5], records[1].footer)

    assert "not in its record" in comparison([records[0], shorter], CATALOGUE)


def test_the_command_writes_one_page(tmp_path):
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["compare", *map(str, PATHS[:2]), "--out", str(out)])

    assert done.exit_code == ExitCode.OPEN
    assert "2 engines side by side" in out.read_text()


def test_a_record_that_is_none_is_a_usage_error(tmp_path):
    broken = tmp_path / "record.jsonl"
    broken.write_text("no record\n")
    done = CliRunner().invoke(app, ["compare", str(broken), "--out", str(tmp_path / "page.html")])

    assert done.exit_code == ExitCode.USAGE
