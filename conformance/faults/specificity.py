"""Judges what the trial of a fault shows: which rows it killed, by what, and whether it was seen for what it is.

Pure: the same results give the same outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from conformance.catalogue import Catalogue, Row
from conformance.faults.planting import Fault
from conformance.faults.trying import Tried
from conformance.record import RowResult
from conformance.verdicts import Rehearsed, Verdict

SURVIVAL_ROWS = {"F-CUDA-016"}
SURVIVAL_SECTIONS = {"err", "parse"}


class Kill(msgspec.Struct, frozen=True):
    """A row that saw a fault: by which observation, and how (falsified, warning, or its rehearsal failed)."""

    row: str
    observation: str
    how: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a fault did: the rows that killed it, those that changed with it, and why it is not specific, if so.

    `machine` is where it was tried; `unsteady` are rows that changed with it once and not again; `lost` those that its
    trial did not come to within its limit.
    """

    fault: str
    area: str
    what: str
    seen_in: str
    machine: str
    crash: bool
    expected: list[str]
    tried: list[str]
    killed_by: list[Kill]
    collateral: list[str]
    unsteady: list[str]
    lost: list[str]
    specific: bool
    reasons: list[str]
    seconds: float
    revision: str = ""


def merged(trials: Sequence[Tried], healthy: Mapping[str, RowResult]) -> Tried:
    """Several trials of one fault as one: a row's first result, but for one that was healthy once.

    Steps of smoke count that failed each time.
    """
    rows: dict[str, RowResult] = {}
    for result in (result for tried in trials for result in tried.rows):
        control = healthy.get(result.id)
        if result.id not in rows or (control is not None and state(result) == state(control)):
            rows[result.id] = result
    smoked = [tried.smoke_failures for tried in trials if tried.smoked]
    failures = min(smoked, key=len) if smoked else []
    lost = [row for tried in trials for row in tried.lost if row not in rows]
    return Tried(
        rows=list(rows.values()),
        smoke_failures=failures,
        witness="".join(tried.witness for tried in trials),
        seconds=round(sum(tried.seconds for tried in trials), 3),
        smoked=bool(smoked),
        lost=list(dict.fromkeys(lost)),
        cause=next((tried.cause for tried in trials if tried.cause), ""),
    )


def unsteady_rows(trials: Sequence[Tried]) -> list[str]:
    """Rows that ended differently in trials of the same fault."""
    seen: dict[str, set[tuple[str, str]]] = {}
    for result in (result for tried in trials for result in tried.rows):
        seen.setdefault(result.id, set()).add(state(result))
    return sorted(row for row, states in seen.items() if len(states) > 1)


def judge_fault(planted: Fault, tried: Tried, healthy: Mapping[str, RowResult], catalogue: Catalogue) -> Outcome:
    """The outcome of a fault's trial, held against the healthy engine's results for the same rows."""
    rows = {row.id: row for row in catalogue.rows}
    compared = [result for result in tried.rows if result.id in healthy]
    changed = [result for result in compared if state(result) != state(healthy[result.id])]
    kills = [kill for result in changed if (kill := _kill(planted, rows[result.id], result)) is not None]
    collateral = [result.id for result in changed if result.id not in planted.expects]
    reasons = _reasons(planted, tried, kills, [row for row in collateral if not _within(planted, rows[row])])
    reasons += [
        f"{result.id}: the harness failed: {result.reason[:200]}"
        for result in tried.rows
        if result.verdict is Verdict.ERROR
    ]
    reasons += [f"{row}: {tried.cause}" for row in tried.lost if row in planted.expects]
    reasons += [f"{result.id}: no healthy control" for result in tried.rows if result.id not in healthy]
    return Outcome(
        fault=planted.name,
        area=planted.area,
        what=planted.what,
        seen_in=planted.seen_in,
        machine=planted.machine,
        crash=planted.crash,
        expected=sorted(planted.expects),
        tried=[result.id for result in tried.rows],
        killed_by=kills,
        collateral=sorted(collateral),
        unsteady=[],
        lost=tried.lost,
        specific=not reasons,
        reasons=reasons,
        seconds=tried.seconds,
    )


def state(result: RowResult) -> tuple[str, str]:
    """What must not change outside a fault's blast radius."""
    return result.verdict.value, result.rehearsed.value if result.rehearsed else ""


def _kill(planted: Fault, row: Row, result: RowResult) -> Kill | None:
    """The kill of a row by the observation that the fault names; any other change is none."""
    named = planted.expects.get(row.id)
    if named is None or (planted.crash and row.section not in SURVIVAL_SECTIONS and row.id not in SURVIVAL_ROWS):
        return None
    how = _how(row, result)
    seen = {Verdict.FALSIFIED, Verdict.WARNING} if how == "warning" else {Verdict.FALSIFIED}
    for finding in result.findings:
        if finding.verdict in seen and finding.name.partition("/")[0] == named.partition("/")[0] and how:
            return Kill(row.id, finding.name, how)
    return None


def _how(row: Row, result: RowResult) -> str:
    if result.verdict is Verdict.FALSIFIED:
        return "falsified"
    if result.rehearsed is Rehearsed.FAILED:
        return "rehearsed: failed"
    return "warning" if result.verdict is Verdict.WARNING and row.severity == "WARNING" else ""


def _within(planted: Fault, row: Row) -> bool:
    return row.id in planted.blast or row.section in planted.blast


def _reasons(planted: Fault, tried: Tried, kills: list[Kill], outside: list[str]) -> list[str]:
    """Why the fault was not seen for what it is; empty if it was."""
    reasons = []
    if not kills:
        shown = {
            result.id: sorted({finding.name for finding in result.findings if finding.verdict is Verdict.FALSIFIED})[:4]
            for result in tried.rows
            if result.id in planted.expects
        }
        expected = ", ".join(f"{row} {name}" for row, name in planted.expects.items())
        reasons.append(f"unseen: expected {expected}; falsified were {shown}")
    if "broken: " in tried.witness:
        reasons.append(f"could not be planted: {tried.witness.strip()[-300:]}")
    elif f"ran {planted.name} " not in tried.witness:
        reasons.append("its code did not run")
    if tried.smoke_failures and not planted.crash:
        reasons.append(f"smoke fails with it: {tried.smoke_failures[0]}")
    if outside:
        reasons.append(f"changed outside its blast radius: {', '.join(outside)}")
    return reasons
