"""From a record to the one number a pipeline reads; computed from the rows alone."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.catalogue import NO_DEVICE
from conformance.record import RowResult
from conformance.verdicts import ExitCode, Rehearsed, Verdict, roll_up

NOT_SELECTED = "not selected"
NOT_WRITTEN = "not written"
INTERRUPTED = "interrupted"


def selected(rows: Sequence[RowResult]) -> list[RowResult]:
    """The rows that the exit code speaks of."""
    return [row for row in rows if row.reason != NOT_SELECTED]


def exit_code(rows: Sequence[RowResult], *, rehearsal: bool, ended: str = "completed") -> ExitCode:
    """The contract: 1 falsified, 4 harness error, 3 undecided or untested, else 0. No row at all is 3.

    A trial that `ended` broken is a harness error whatever its rows say, unless one of them is falsified.
    In a rehearsal the rows that need a GPU may be UNTESTED for that reason alone, unless their rehearsal failed.
    """
    spoken_of = selected(rows)
    if any(row.verdict is Verdict.FALSIFIED or row.rehearsed is Rehearsed.FAILED for row in spoken_of):
        return ExitCode.FALSIFIED
    if ended == "broken" or any(row.verdict is Verdict.ERROR for row in spoken_of):
        return ExitCode.HARNESS
    open_rows = [row for row in spoken_of if not _settled(row, rehearsal=rehearsal)]
    return ExitCode.UNDECIDED if open_rows or not _anything_tried(spoken_of) else ExitCode.OPEN


def headline_verdict(rows: Sequence[RowResult]) -> Verdict:
    """The roll-up over the selected rows."""
    return roll_up(row.verdict for row in selected(rows))


def _settled(row: RowResult, *, rehearsal: bool) -> bool:
    if row.verdict in {Verdict.CORROBORATED, Verdict.WARNING}:
        return True
    return rehearsal and row.verdict is Verdict.UNTESTED and row.reason == NO_DEVICE


def _anything_tried(rows: Sequence[RowResult]) -> bool:
    return any(row.verdict is not Verdict.UNTESTED or row.rehearsed for row in rows)
