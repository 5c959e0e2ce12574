"""The kill matrix: which rows a fault is tried against, and what all trials together show.

Pure but for the catalogue: the same trials give the same matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from conformance.catalogue import Row, load_catalogue
from conformance.faults.ledger import HEALTHY, Entry
from conformance.faults.planting import Fault
from conformance.faults.specificity import Outcome, judge_fault, merged, state, unsteady_rows
from conformance.faults.trying import Tried
from conformance.record import RowResult
from conformance.trial.inventory import inventory
from conformance.verdicts import Rehearsed, Verdict

SAMPLE = ("F-MEM-024", "F-PARSE-043", "F-DTYPE-047", "F-CUDA-014", "F-QUAL-069")
GPU_SAMPLE = ("F-CUDA-014", "F-QUAL-069")
_SOURCES_SECTION = "build"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of machine contributes: its devices, the healthy engine on every row, and its false alarms."""

    machine: str
    devices: list[str]
    revisions: list[str]
    healthy: dict[str, str]
    healthy_runs: int
    false_alarms: list[str]
    seconds: float


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """A matrix: the parts of its machines, and the outcome of each fault on each."""

    parts: list[Part]
    faults: list[Outcome]

    @property
    def false_alarms(self) -> list[str]:
        """Rows that the healthy engine failed, on any machine."""
        return sorted({row for part in self.parts for row in part.false_alarms})


def rows_for(planted: Fault, *, full: bool) -> list[str]:
    """The rows a fault is tried against: those that should see it, then the sample, or all that it can reach.

    Rows about the sources build and start the sources as they are: a fault of the process is not in them, and a fault
    of the sources is nowhere else.
    """
    catalogue = load_catalogue()
    written = inventory(catalogue)
    reached = [row.id for row in catalogue.rows if row.id in written and _reaches(planted, row)]
    others = reached if full else [row for row in _sample(planted) if row in reached]
    return list(dict.fromkeys([*(row for row in planted.expects if row in written), *others]))


def _sample(planted: Fault) -> tuple[str, ...]:
    """A fault that only a GPU shows is tried there, where time is dear."""
    return GPU_SAMPLE if planted.machine == "gpu" else SAMPLE


def judged(entries: Sequence[Entry], known: Mapping[str, Fault]) -> Matrix:
    """The matrix of all trials. Of a row that was tried with several sources the later ones count."""
    parts, outcomes = [], []
    for machine in sorted({entry.machine for entry in entries}):
        here = [entry for entry in entries if entry.machine == machine]
        healthy = healthy_results(here)
        parts.append(_part(machine, here, healthy))
        for name in sorted({entry.fault for entry in here} & known.keys()):
            mine = [entry for entry in here if entry.fault == name]
            outcomes.append(_outcome(known[name], mine, healthy))
    return Matrix(parts=parts, faults=sorted(outcomes, key=lambda each: (each.area, each.fault, each.machine)))


def healthy_results(entries: Iterable[Entry]) -> dict[str, RowResult]:
    """The healthy engine's result for each row: the latest that is no false alarm, if there is one."""
    results: dict[str, RowResult] = {}
    for entry in entries:
        for result in entry.tried.rows if entry.fault == HEALTHY else ():
            if result.id not in results or not alarmed(result) or alarmed(results[result.id]):
                results[result.id] = result
    return results


def alarmed(result: RowResult) -> bool:
    """Whether a row failed; on the healthy engine that is a false alarm."""
    return result.verdict in {Verdict.FALSIFIED, Verdict.ERROR} or result.rehearsed is Rehearsed.FAILED


def surprising(planted: Fault, trials: Sequence[Tried], healthy: Mapping[str, RowResult]) -> list[str]:
    """Rows that a fault changed outside what it may change, seen once: to be tried a second time."""
    rows = {row.id: row for row in load_catalogue().rows}
    seen = [result for tried in trials for result in tried.rows]
    return [
        result.id
        for result in seen
        if result.id in healthy
        and state(result) != state(healthy[result.id])
        and sum(each.id == result.id for each in seen) == 1
        and not {result.id, rows[result.id].section} & {*planted.expects, *planted.blast}
    ]


def _reaches(planted: Fault, row: Row) -> bool:
    return (row.section == _SOURCES_SECTION) == (planted.edit is not None)


def _outcome(planted: Fault, entries: Sequence[Entry], healthy: Mapping[str, RowResult]) -> Outcome:
    last = entries[-1]
    newer = {row.id for entry in entries if entry.source == last.source for row in entry.tried.rows}
    trials = [entry.tried if entry.source == last.source else _without(entry.tried, newer) for entry in entries]
    outcome = judge_fault(planted, merged(trials, healthy), healthy, load_catalogue())
    return msgspec.structs.replace(
        outcome, machine=last.machine, revision=last.revision, unsteady=unsteady_rows(trials)
    )


def _without(tried: Tried, rows: set[str]) -> Tried:
    return msgspec.structs.replace(tried, rows=[row for row in tried.rows if row.id not in rows])


def _part(machine: str, entries: Sequence[Entry], healthy: Mapping[str, RowResult]) -> Part:
    controls = [entry for entry in entries if entry.fault == HEALTHY]
    alarms = {result.id for entry in controls for result in entry.tried.rows if alarmed(result)}
    return Part(
        machine=machine,
        devices=sorted({entry.device for entry in entries}),
        revisions=list(dict.fromkeys(entry.revision for entry in entries)),
        healthy={row: _shown(healthy[row]) for row in sorted(healthy)},
        healthy_runs=sum(len(entry.tried.rows) for entry in controls),
        false_alarms=sorted(alarms),
        seconds=round(sum(entry.tried.seconds for entry in entries), 1),
    )


def _shown(result: RowResult) -> str:
    return f"{result.verdict}, rehearsed: {result.rehearsed}" if result.rehearsed else result.verdict.value
