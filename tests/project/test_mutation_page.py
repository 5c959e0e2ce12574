"""The page on mutation testing says of the committed results what is in them."""

import json

from conformance.documentation import mutation_blocks

SURVIVORS = [
    {"line": 7, "operator": "x", "change": "a is b -> a == b", "why": "equal where identical"},
    {"line": 8, "operator": "x", "change": "c is d -> c == d", "why": "equal where identical"},
    {"line": 9, "operator": "x", "change": "`e` < 1 -> `e` <= 1", "why": ""},
]


def results(tmp_path, survivors):
    path = tmp_path / "docs" / "results" / "mutation.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    first = {"mutants": 20, "killed": 16, "survived": len(survivors), "broken": 1, "survivors": survivors}
    second = {"mutants": 10, "killed": 10, "survived": 0, "broken": 0, "survivors": []}
    path.write_text(json.dumps({"modules": {"a.py": first, "b.py": second}}))


def test_each_module_has_its_line_and_the_last_is_of_all(tmp_path):
    results(tmp_path, SURVIVORS)

    assert mutation_blocks.score(tmp_path).splitlines()[2:] == [
        "| `a.py` | 20 | 1 | 16 | 3 | 1 | 84.2% |",
        "| `b.py` | 10 | 0 | 10 | 0 | 0 | 100.0% |",
        "| all | 30 | 1 | 26 | 3 | 1 | 89.7% |",
    ]


def test_survivors_are_counted_by_reason_and_gaps_are_listed(tmp_path):
    results(tmp_path, SURVIVORS)

    said = mutation_blocks.survivors(tmp_path)

    assert "| `a.py` | 2 | equal where identical |" in said
    assert "| `a.py`, line 9 | `'e' < 1 -> 'e' <= 1` |" in said
    results(tmp_path, SURVIVORS[:2])
    assert mutation_blocks.survivors(tmp_path).endswith("None is unexplained.")


def test_without_results_it_says_that_there_are_none(tmp_path):
    assert mutation_blocks.score(tmp_path) == mutation_blocks.survivors(tmp_path) == mutation_blocks.NOTHING
