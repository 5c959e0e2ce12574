"""Kill matrix → one self-contained HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from conformance.catalogue import load_catalogue
from conformance.faults.mechanisms import load_mechanisms
from reports.scorecard import page_template

if TYPE_CHECKING:
    from conformance.faults.matrix import Matrix
    from conformance.faults.specificity import Outcome


class Planted(NamedTuple):
    """A mechanism that really happened, with the faults that repeat it and which of them are in the matrix and seen."""

    number: int
    what: str
    seen_in: str
    faults: list[str]
    seen: list[str]


def killers(matrix: Matrix) -> dict[str, list[Outcome]]:
    """The faults that each row sees, specific ones alone; rows without one are absent."""
    rows: dict[str, list[Outcome]] = {}
    for outcome in matrix.faults:
        for kill in outcome.killed_by if outcome.specific else ():
            rows.setdefault(kill.row, []).append(outcome)
    return rows


def severity_page(matrix: Matrix) -> str:
    """The page: check by fault, faults that one row alone sees, and those that are not seen for what they are."""
    specific = [outcome for outcome in matrix.faults if outcome.specific]
    rows = killers(matrix)
    return page_template("severity.html.jinja").render(
        matrix=matrix,
        seen=len(specific),
        rows=rows,
        without=[row.id for row in load_catalogue().rows if row.id not in rows],
        total=len(load_catalogue().rows),
        single=[outcome for outcome in specific if len(outcome.killed_by) == 1],
        unseen=[outcome for outcome in matrix.faults if not outcome.specific],
        collateral=[outcome for outcome in matrix.faults if outcome.collateral],
        unsteady=[outcome for outcome in matrix.faults if outcome.unsteady or outcome.lost],
        mechanisms=_planted(matrix),
    )


def _planted(matrix: Matrix) -> list[Planted]:
    seen = {outcome.fault for outcome in matrix.faults if outcome.specific}
    return [
        Planted(number, each.what, each.seen_in, each.faults, [name for name in each.faults if name in seen])
        for number, each in load_mechanisms().items()
    ]
