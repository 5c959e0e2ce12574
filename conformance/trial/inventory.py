"""Which row has which check, read from the syntax trees of `checks/`, before pytest is started."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import msgspec

from conformance.catalogue import Catalogue
from conformance.reported import Reported
from conformance.verdicts import ExitCode

CHECKS_DIRECTORY = Path(__file__).resolve().parent.parent.parent / "checks"
_CHECK_NAME = re.compile(r"test_f_[a-z]+_\d{3}")


class CatalogueMismatch(Reported):
    """Checks and rows are not one to one; running would leave a hole that looks like a pass."""

    exit_code: ClassVar[ExitCode] = ExitCode.HARNESS

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("checks and catalogue disagree: " + "; ".join(self.problems))


class Place(msgspec.Struct, frozen=True):
    """Where a check stands."""

    file: str
    line: int


def inventory(catalogue: Catalogue, directory: Path = CHECKS_DIRECTORY) -> dict[str, Place]:
    """The check of each written row.

    Raises:
        CatalogueMismatch: a check without a row, a row with two checks, a row that lists observations without a
            check, a check whose row lists none, or a file that does not parse.
    """
    rows = {row.function: row for row in catalogue.rows}
    found: dict[str, Place] = {}
    problems: list[str] = []
    for path in sorted(directory.rglob("test_*.py")):
        for name, line in _tests(path, problems):
            row = rows.get(name)
            if row is None or not _CHECK_NAME.fullmatch(name):
                problems.append(f"{path.name}:{line} {name} has no row")
            elif row.id in found:
                problems.append(f"{path.name}:{line} is a second check for {row.id}")
            else:
                found[row.id] = Place(path.name, line)
    problems += [
        f"{row.id} lists observations but has no check" for row in catalogue.rows if row.written and row.id not in found
    ]
    problems += [
        f"{row.id} has a check but lists no observations"
        for row in catalogue.rows
        if row.id in found and not row.written
    ]
    if problems:
        raise CatalogueMismatch(problems)
    return found


def _tests(path: Path, problems: list[str]) -> list[tuple[str, int]]:
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return []
    return [
        (node.name, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
    ]
