"""The table of what a scorecard owes its reader names files and tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = re.findall(
    r"^\| (\d+) \| (.*?) \| (.*?) \| (.*?) \|$", (ROOT / "docs" / "scorecard.md").read_text(), re.MULTILINE
)
TESTS = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}


def test_all_twenty_six_are_there_in_order():
    assert [int(number) for number, *_ in LINES] == list(range(1, 27))


@pytest.mark.parametrize("line", LINES, ids=[line[0] for line in LINES])
def test_each_is_made_somewhere_and_held_by_a_test(line):
    _, _, made, tests = line
    names = re.findall(r"`([\w.]+)::(\w+)`", tests)

    assert names
    assert all((ROOT / path).is_file() for path in re.findall(r"`([^`]+)`", made))
    assert not [f"{file}::{name}" for file, name in names if f"def {name}(" not in TESTS.get(file, "")]
