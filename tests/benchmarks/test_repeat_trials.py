"""Repeated trials: seeds that differ, every change of a verdict named, and the parts that can be chosen."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.repeat_trials import summary
from conformance.catalogue import load_catalogue
from conformance.record import read_record

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    directory = tmp_path_factory.mktemp("repeats")
    command = [sys.executable, "benchmarks/repeat_trials.py", "--times", "2", "--out", str(directory / "repeats.json")]
    command += ["--keep", str(directory / "kept"), "--", "-k", "F-PARSE-044", "-k", "F-CUDA-013"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return directory, done


def test_each_repeat_has_a_seed_of_its_own_and_the_same_verdicts(repeated):
    directory, done = repeated
    told = json.loads((directory / "repeats.json").read_text())

    assert done.returncode == 0, done.stderr
    assert told["trials"] == 2
    assert told["rows"] == 2
    assert len({run["seed"] for run in told["runs"]}) == 2
    assert told["differing"] == {}


def test_the_trials_are_kept_with_their_records(repeated):
    records = sorted((repeated[0] / "kept").glob("*/record.jsonl"))

    assert len(records) == 2
    assert all(len(read_record(path).rows) == 100 for path in records)


def test_trials_of_earlier_calls_are_compared_without_running_any(repeated, tmp_path):
    directory, _ = repeated
    read = [sys.executable, "benchmarks/repeat_trials.py", "--read", str(directory), "--out", str(tmp_path / "r.json")]
    done = subprocess.run(read, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    told, before = (json.loads(path.read_text()) for path in (tmp_path / "r.json", directory / "repeats.json"))

    assert done.returncode == 0, done.stderr
    assert {run.pop("seconds") > 0 for run in told["runs"]} == {True}
    assert [run["seed"] for run in told["runs"]] == [run["seed"] for run in before["runs"]]
    read[3] = str(tmp_path / "nothing")
    assert subprocess.run(read, cwd=ROOT, capture_output=True, timeout=60, check=False).returncode == 1


def test_a_row_that_shows_something_else_is_named(repeated):
    first, second = (read_record(path) for path in sorted((repeated[0] / "kept").glob("*/record.jsonl")))
    shorter = type(second)(second.header, second.rows[1:], second.footer)

    assert set(summary([(first, 1.0), (shorter, 2.0)])["differing"]) == {first.rows[0].id}


def test_untimed_rows_are_those_that_need_no_quiet_machine():
    rows = load_catalogue().rows

    assert 0 < sum(row.alone for row in rows) < len(rows) / 2
