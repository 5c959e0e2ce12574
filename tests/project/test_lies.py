"""Each of the twenty ways a green lies is written down and tried."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRIED = re.compile(r"test_lie_(\d\d)_\w+")


def test_every_lie_of_the_list_has_a_test():
    listed = set(re.findall(r"^\| (\d\d) \|", (ROOT / "docs" / "lies.md").read_text(), re.MULTILINE))
    trees = [ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("test_*.py")]
    names = [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]

    assert listed == {f"{number:02}" for number in range(1, 21)}
    assert {match[1] for match in map(TRIED.fullmatch, names) if match} == listed
