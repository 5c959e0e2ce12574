"""Kill matrix → one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from conformance.catalogue import load_catalogue

if TYPE_CHECKING:
    from conformance.faults.matrix import Matrix


def severity_page(matrix: Matrix) -> str:
    """The page: check by fault, faults that one row alone sees, and those that are not seen for what they are."""
    specific = [outcome for outcome in matrix.faults if outcome.specific]
    rows: dict[str, list[str]] = {}
    for outcome in specific:
        for kill in outcome.killed_by:
            rows.setdefault(kill.row, []).append(outcome.fault)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("severity.html.jinja").render(
        matrix=matrix,
        seen=len(specific),
        rows=rows,
        without=[row.id for row in load_catalogue().rows if row.id not in rows],
        single=[outcome for outcome in specific if len(outcome.killed_by) == 1],
        unseen=[outcome for outcome in matrix.faults if not outcome.specific],
    )
