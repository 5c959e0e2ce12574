"""How fast engines were side by side: what section VIII measured on a GPU, for records of one machine and no others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import msgspec

from conformance.machine import machine_hash
from conformance.observations import Measured, Observation, Sample
from conformance.record import Finding, Record, RowResult
from reports.explain import amount

_UNITS = {"s", "tok/s", "x", "%"}
_PREFIX, _RATE = "F-PERF-", "_tok_s"


class SpeedLine(msgspec.Struct, frozen=True):
    """One quantity of one row with what each engine reached; an empty cell was not measured."""

    row: str
    name: str
    cells: list[str]


class Speeds(msgspec.Struct, frozen=True):
    """The engines that one machine tried, and their speeds."""

    records: list[Record]
    lines: list[SpeedLine]


def speeds(records: Sequence[Record]) -> list[Speeds]:
    """A table for each machine with a GPU; times of a rehearsal mean nothing and are left out."""
    timed = [record for record in records if not record.header.rehearsal]
    by_machine = groupby(sorted(timed, key=_machine), key=_machine)
    tables = [_table(list(together)) for _, together in by_machine]
    return [table for table in tables if table.lines]


def _machine(record: Record) -> str:
    return machine_hash(record.header.environment)


def _table(records: list[Record]) -> Speeds:
    told = [dict(_told(record.rows)) for record in records]
    quantities = dict.fromkeys(quantity for each in told for quantity in sorted(each))
    lines = [SpeedLine(row, name, [each.get((row, name), "") for each in told]) for row, name in sorted(quantities)]
    return Speeds(records, lines)


def _told(rows: Sequence[RowResult]) -> Iterator[tuple[tuple[str, str], str]]:
    for row in rows:
        if row.id.startswith(_PREFIX):
            findings = {finding.name: finding for finding in row.findings}
            for observation in row.observations:
                for name, cell in _cells(observation, findings):
                    yield (row.id, name), cell


def _cells(observation: Observation, findings: Mapping[str, Finding]) -> Iterator[tuple[str, str]]:
    if isinstance(observation, Measured) and observation.unit in _UNITS:
        yield observation.name, amount(observation.value, observation.unit)
    if isinstance(observation, Sample) and observation.unit in _UNITS and observation.values:
        yield observation.name, _sampled(observation, findings.get(observation.name))
        for name, value in observation.context.items():
            if name.endswith(_RATE):
                yield name.removesuffix(_RATE), amount(value, "tok/s")


def _sampled(sample: Sample, finding: Finding | None) -> str:
    """The geometric mean as the rules form it, with the interval that decided and how many values there were."""
    usable = [value for value in sample.values if math.isfinite(value) and value > 0]
    mean = math.exp(math.fsum(map(math.log, usable)) / len(usable)) if usable else math.nan
    interval = finding.interval if finding else None
    between = f", {amount(interval[0], '')} to {amount(interval[1], '')}" if interval else ""
    beside = f" beside {sample.note}" if sample.unit == "x" and sample.note else ""
    return f"{amount(mean, sample.unit)}{between}, {len(sample.values)} runs{beside}"
