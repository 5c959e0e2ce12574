"""Thousands of records: read once, again where a file changed, never silently without one that is broken."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.verdicts import ExitCode
from reports.index import INDEX, read_index, update_index
from reports.many import compared_text, found_text, has_broken, summary_text

RECORD = Path(__file__).parents[2] / "docs" / "results" / "rehearsal" / "record.jsonl"


def copy(directory, name, engine, change=lambda line: line):
    """A stored record under another name; `change` is applied to each of its rows."""
    header, *rows, footer = (json.loads(line) for line in RECORD.read_text().splitlines())
    header["trial_id"], header["engine"]["name"] = name, engine
    path = directory / name / "record.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *map(change, rows), footer)))
    return path


def reworded(line):
    return line | {"reason": "an ODD reason [x"} if line["id"] == "F-MEM-029" else line


def unsurvived(line):
    return line | {"rehearsed": "failed"} if line["id"] == "F-MEM-024" else line


@pytest.fixture
def runs(tmp_path):
    copy(tmp_path, "first", "swift", reworded)
    copy(tmp_path, "second", "swift")
    copy(tmp_path, "third", "slow")
    (tmp_path / "latest").symlink_to("third")
    return tmp_path


def test_all_records_are_summarised_by_engine_and_links_are_not_followed(runs):
    text = summary_text(update_index(runs))
    assert text.startswith("3 records, 0 broken, 0 truncated\n")
    assert "swift: 2 trials (2 rehearsals)" in text
    assert "slow: 1 trial (1 rehearsals)" in text
    frame = read_index(runs / INDEX, ["path", "row"])
    assert len(frame) == 300


def test_a_word_is_found_as_it_stands_whatever_its_case(runs):
    index = update_index(runs)
    assert found_text(index, "odd reason [X").startswith("1 row of 1 record with")
    assert found_text(index, "F-MEM-029").startswith("3 rows of 3 records with")
    assert found_text(index, "slow").startswith("100 rows of 1 record with")
    assert "… and 60 more" in found_text(index, "slow")
    assert found_text(index, "nowhere").startswith("0 rows of 0 records")


def test_groups_that_differ_are_shown_with_their_shares(runs):
    copy(runs, "fourth", "slow", unsurvived)
    lines = compared_text(update_index(runs), "engine").splitlines()
    assert lines[0].startswith("1 of ")
    assert lines[1:] == ["F-MEM-024    slow 50%, swift 100%"]
    assert compared_text(runs / INDEX, "model").startswith("0 of ")


def test_only_files_that_changed_are_read_again(runs, monkeypatch):
    from reports import index as indexing

    read = []
    real = indexing.skim_record
    monkeypatch.setattr(indexing, "skim_record", lambda path: read.append(path.parent.name) or real(path))
    update_index(runs)
    update_index(runs)
    assert sorted(read) == ["first", "second", "third"]
    os.utime(runs / "second" / "record.jsonl", ns=(1, 1))
    (runs / "third" / "record.jsonl").unlink()
    update_index(runs)
    assert read[3:] == ["second"]
    assert sorted(read_index(runs / INDEX, ["path"])["path"].unique()) == ["first/record.jsonl", "second/record.jsonl"]


@pytest.mark.parametrize("content", [b"", b"\xff", b"no index"])
def test_an_index_that_is_none_is_made_anew(runs, content):
    (runs / INDEX).write_bytes(content)
    assert len(read_index(update_index(runs), ["row"])) == 300


def test_a_broken_record_is_named_and_a_truncated_one_counted(runs):
    (runs / "first" / "record.jsonl").write_text("nonsense\n")
    whole = (runs / "second" / "record.jsonl").read_bytes()
    (runs / "second" / "record.jsonl").write_bytes(whole[: len(whole) // 2])
    index = update_index(runs)
    text = summary_text(index)
    assert text.startswith("3 records, 1 broken, 1 truncated\n")
    assert "broken: first/record.jsonl: line 1" in text
    assert has_broken(index)


def falsify(*words):
    command = [sys.executable, "-m", "conformance", "records", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [((), "3 records"), (("--by", "engine"), "differ by engine"), (("--search", "F-MEM-029"), "3 rows of 3 records")],
)
def test_the_command_answers(runs, words, expected):
    done = falsify(runs, *words)
    assert done.returncode == ExitCode.OPEN, done.stderr
    assert expected in done.stdout


def test_a_broken_record_shuts_the_command(runs):
    (runs / "first" / "record.jsonl").write_text("nonsense\n")
    assert falsify(runs).returncode == ExitCode.HARNESS


@pytest.mark.parametrize("words", [("--by", "colour"), ()])
def test_what_cannot_be_asked_is_one_line(tmp_path, words):
    done = falsify(tmp_path / "absent", *words)
    assert done.returncode == ExitCode.USAGE
    assert len(done.stderr.splitlines()) == 1


def test_many_are_read_by_several_processes_and_told_as_by_one(tmp_path, monkeypatch):
    from reports import index as indexing

    for number in range(5):
        copy(tmp_path, f"run {number}", f"engine {number % 2}", reworded)
    (tmp_path / "run 3" / "record.jsonl").write_text("nonsense\n")
    columns = ["path", "engine", "started", "row", "verdict", "rehearsed", "reason", "duration_s", "exit_code", "size"]
    one = read_index(update_index(tmp_path), columns)
    (tmp_path / INDEX).unlink()
    monkeypatch.setattr(indexing, "_RECORDS_A_GROUP", 2)
    monkeypatch.setattr(indexing.os, "sched_getaffinity", lambda pid: {0, 1})
    several = read_index(update_index(tmp_path), columns)
    assert several.astype(str).equals(one.astype(str))
