"""What a committed record says, as numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from conformance.observations import Sample
from conformance.record import Record
from conformance.verdicts import Verdict

_PASSES = {Verdict.CORROBORATED, Verdict.WARNING}


def rows_not_passed(record: Record, rows: Sequence[str] = ()) -> list[str]:
    """The rows (none: all) that are neither CORROBORATED nor WARNING, in words; a row without a line among them."""
    found = {row.id: row.verdict for row in record.rows}
    wanted = rows or record.header.rows
    left = [row for row in wanted if found.get(row) not in _PASSES]
    return [f"{row} {found[row].value if row in found else 'absent'}" for row in left]


def rate(record: Record, row_id: str, name: str = "rate") -> float | None:
    """The median of a row's sample; None unless the row was CORROBORATED, so that no rate stands without its rule."""
    for row in record.rows:
        if row.id == row_id and row.verdict is Verdict.CORROBORATED:
            samples = [one for one in row.observations if isinstance(one, Sample) and one.name == name]
            return statistics.median(samples[0].values) if samples else None
    return None
