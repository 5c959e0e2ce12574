"""The commands that read stored records: what they print, what they write, and the number that they end with."""

import sys
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent / "gate"))
import small_world as world

from conformance.cli import app
from conformance.record import RECORD_FILE, read_record, write_record
from conformance.verdicts import ExitCode


@pytest.fixture
def falsify(tmp_path, monkeypatch):
    """The command line in the small world, and records by name in a directory."""
    for module in ("conformance.catalogue", "conformance.gate.applied", "reports.written"):
        monkeypatch.setattr(f"{module}.load_catalogue", world.catalogue)
    for module in ("conformance.thresholds", "conformance.gate.applied", "reports.written"):
        monkeypatch.setattr(f"{module}.load_thresholds", lambda path=None: world.thresholds())
    monkeypatch.chdir(tmp_path)
    records = {
        "good": world.record(trial_id="good"),
        "bad": world.record({1: world.BAD}, trial_id="bad", started="2026-11-25T10:00:00+00:00"),
        "part": world.record(selected=["F-A-001"], trial_id="part"),
    }
    for name, record in records.items():
        Path(name).mkdir()
        write_record(record, Path(name) / RECORD_FILE)

    def invoke(*words):
        return CliRunner().invoke(app, [*words])

    return invoke


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["gate", "good"], ExitCode.OPEN, "Gate OPEN (exit code 0)."),
        (["gate", "good/record.jsonl"], ExitCode.OPEN, "Gate OPEN"),
        (["gate", "bad"], ExitCode.FALSIFIED, "F-A-001: right: expected 1, observed 2"),
        (["gate", "bad", "--baseline", "good"], ExitCode.FALSIFIED, "Against the baseline: 1 new failure."),
        (["gate", "part"], ExitCode.UNDECIDED, "partial record"),
        (["gate", "absent"], ExitCode.USAGE, "No such file"),
        (["gate", "good", "--gate", "absent.toml"], ExitCode.USAGE, "absent.toml: No such file"),
        (["diff", "good", "good"], ExitCode.OPEN, "no row differs"),
        (["diff", "good", "bad"], ExitCode.FALSIFIED, "new failure"),
        (["diff", "bad", "good"], ExitCode.OPEN, "fixed"),
        (["rejudge", "bad"], ExitCode.FALSIFIED, "0 rows of 5 come out differently"),
        (["history", "."], ExitCode.OPEN, "4 of 5 rows fared the same in all trials"),
        (["history", "absent"], ExitCode.USAGE, "not a directory"),
    ],
)
def test_a_command_says_it_in_words_and_in_one_number(falsify, words, code, told):
    done = falsify(*words)

    assert done.exit_code == code, done.output
    assert told in done.output


def test_the_paragraph_is_one_paragraph(falsify):
    assert falsify("gate", "bad").output.count("\n") == 1


def test_annotations_stand_on_the_rows_that_shut_the_gate(falsify):
    lines = falsify("gate", "bad", "--annotate").output.splitlines()

    assert lines[1:] == ["::error title=F-A-001::right: expected 1, observed 2"]


def test_a_gate_file_that_does_not_fit_is_usage(falsify):
    Path("gate.toml").write_text('required = ["F-A-999"]')

    done = falsify("gate", "good", "--gate", "gate.toml")

    assert done.exit_code == ExitCode.USAGE
    assert "matches no row of the catalogue" in done.output


def test_a_broken_record_is_usage_and_not_open(falsify):
    Path("broken.jsonl").write_text("{}\n")

    assert falsify("gate", "broken.jsonl").exit_code == ExitCode.USAGE


def test_a_rejudged_record_is_a_record_and_nothing_is_written_over(falsify):
    assert falsify("rejudge", "bad", "--out", "again.jsonl").exit_code == ExitCode.FALSIFIED
    assert read_record(Path("again.jsonl")).rows == read_record(Path("bad/record.jsonl")).rows
    assert falsify("rejudge", "bad", "--out", "again.jsonl").exit_code == ExitCode.USAGE


def test_a_history_is_a_table_for_other_tools(falsify):
    done = falsify("history", ".", "--csv", "h.csv", "--parquet", "h.parquet")

    assert done.exit_code == ExitCode.OPEN, done.output
    table = pd.read_csv("h.csv")
    assert len(table) == 15
    assert set(table[table.verdict == "FALSIFIED"].trial) == {"bad"}
    assert list(table.columns) == list(pd.read_parquet("h.parquet").columns)


def test_a_broken_record_in_a_history_is_an_error_and_not_a_hole(falsify):
    Path("good/record-2.jsonl").write_text("nonsense\n")

    assert falsify("history", ".").exit_code == ExitCode.USAGE


def test_everything_given_is_on_the_page_that_is_rendered(falsify):
    killed = {"row": "F-A-001", "observation": "right", "how": "falsified"}
    planted = {"fault": "stale_cache", "expected": ["F-A-001"], "killed_by": [killed], "specific": True, "more": 1}
    Path("kills.json").write_bytes(msgspec.json.encode({"faults": [planted], "parts": [], "more": 1}))
    lint = {"name": "lint", "command": "ruff", "value": 0, "threshold": "<= 0", "verdict": "met"}
    Path("done.json").write_bytes(msgspec.json.encode([lint]))
    Path("gate.toml").write_text('required = ["F-A-002"]')

    done = falsify("render", "bad", "--out", "page", "--baseline", "good", "--history", ".", "--severity", "kills.json",
                   "--done", "done.json", "--gate", "gate.toml")  # fmt: skip

    assert done.exit_code == ExitCode.OPEN, done.output
    page = Path("page/scorecard.html").read_text()
    for words in ("Gate SHUT: falsified (exit code 1)", "1 of 5 checks proven able to fail", "Against the baseline",
                  "new failure", "Seen to fail of</span> stale_cache",
                  "Earlier trials of this engine", "ruff"):  # fmt: skip
        assert words in page
    assert {path.name for path in Path("page").iterdir()} == {
        "scorecard.html", "junit.xml", "summary.md", "badge.svg", "badge.json",
    }  # fmt: skip


@pytest.mark.parametrize("option", ["--severity", "--done"])
def test_a_table_that_is_none_is_usage(falsify, option):
    Path("table.json").write_text('{"not": "a list"}')

    assert falsify("render", "good", option, "table.json").exit_code == ExitCode.USAGE


def test_a_gate_does_not_go_with_a_selection(falsify):
    Path("gate.toml").write_text("")

    assert falsify("run", "--gate", "gate.toml", "-k", "F-A-001").exit_code == ExitCode.USAGE


@pytest.mark.parametrize(("verdict", "code"), [("met", 0), ("not met", 1), ("untested", 3), ("warning", 0)])
def test_the_gate_asks_for_the_definition_of_done_where_it_is_given(falsify, verdict, code):
    Path("done.json").write_bytes(msgspec.json.encode([{"name": "Lint", "verdict": verdict, "reason": "seen"}]))
    done = falsify("gate", "good", "--done", "done.json")
    assert done.exit_code == code, done.output
    assert ("Definition of done: Lint" in done.output) is (verdict != "met")
