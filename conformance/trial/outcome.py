"""From a record to the one number a pipeline reads; computed from the rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from conformance.catalogue import NO_DEVICE
from conformance.record import Record, RowResult
from conformance.verdicts import ExitCode, Rehearsed, Verdict, roll_up

NOT_SELECTED = "not selected"
NOT_WRITTEN = "not written"
INTERRUPTED = "interrupted"


def selected(rows: Sequence[RowResult]) -> list[RowResult]:
    """The rows that the exit code speaks of."""
    return [row for row in rows if not (row.verdict is Verdict.UNTESTED and row.reason == NOT_SELECTED)]


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


def contradictions(record: Record) -> Iterator[str]:
    """Where a stored record claims more than is in it, one sentence each; a complete and honest one has none."""
    for row in record.rows:
        found = {finding.verdict for finding in row.findings}
        if row.verdict is Verdict.CORROBORATED and not (row.observations and found):
            yield f"{row.id} is CORROBORATED without anything observed and judged."
        elif row.verdict is Verdict.CORROBORATED and found != {Verdict.CORROBORATED}:
            yield f"{row.id} is CORROBORATED against its own findings."
    footer = record.footer
    if footer is None:
        return
    code = exit_code(record.rows, rehearsal=record.header.rehearsal, ended=footer.ended)
    if code is not footer.exit_code:
        yield f"The footer's exit code is {footer.exit_code.value}, that of its rows is {code.value}."
    chosen = {row.id for row in selected(record.rows)}
    if chosen != set(record.header.selected):
        yield "The rows that say they were not selected are not those that the header leaves out."


def _settled(row: RowResult, *, rehearsal: bool) -> bool:
    if row.verdict in {Verdict.CORROBORATED, Verdict.WARNING}:
        return True
    return rehearsal and row.verdict is Verdict.UNTESTED and row.reason == NO_DEVICE


def _anything_tried(rows: Sequence[RowResult]) -> bool:
    return any(row.verdict is not Verdict.UNTESTED or row.rehearsed for row in rows)
