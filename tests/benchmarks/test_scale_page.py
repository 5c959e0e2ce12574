"""The page of the scale benchmark is what its result says, with what was missed or not shown."""

import json
from pathlib import Path

from benchmarks.scale_page import page

RESULT = Path(__file__).parents[2] / "docs" / "results" / "scale.json"


def test_the_committed_page_is_made_of_the_committed_result():
    assert RESULT.with_suffix(".md").read_text() == page(json.loads(RESULT.read_text()))


def test_a_part_that_is_missing_or_failed_is_not_shown():
    assert page({}).count("Not shown.") == 5
    assert page({"records": {"verdict": "not shown: the part failed"}}).count("Not shown.") == 5


def test_verdicts_that_differ_are_named():
    result = json.loads(RESULT.read_text())
    result["rehearsal"]["differing"] = ["cell F-MEM-029: CORROBORATED, then FALSIFIED"]
    assert "Verdicts differ: cell F-MEM-029: CORROBORATED, then FALSIFIED" in page(result)
