"""What committed records say of a row: rule, limit, error rate and smallest effect of its observations, and kills."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import groupby
from pathlib import Path

import msgspec

from conformance.record import Finding, Record, RowResult, read_record
from reports.kills import Planted, Severity, read_severity

TRIAL = Path("docs") / "results" / "h100" / "record.jsonl"
SEVERITY = Path("docs") / "results" / "severity.json"


class Told(msgspec.Struct, frozen=True):
    """An observation of a row as the committed trial had it; several points of one name are told together."""

    name: str
    points: int
    rule: str
    limit: str
    error_rate: str
    detectable: str
    verdicts: str
    detail: str


class Committed(msgspec.Struct, frozen=True):
    """The committed trial, and the planted faults of the committed kill matrix; None where there is no matrix."""

    record: Record
    severity: Severity | None

    def row(self, row_id: str) -> RowResult | None:
        """The row's line in the trial."""
        return next((row for row in self.record.rows if row.id == row_id), None)

    def told(self, row_id: str) -> list[Told]:
        """The row's observations in the trial, each name once, in their order."""
        row = self.row(row_id)
        findings = sorted(row.findings if row else [], key=_stem)
        order = list(dict.fromkeys(_stem(finding) for finding in (row.findings if row else [])))
        groups = {name: list(group) for name, group in groupby(findings, key=_stem)}
        return [_told(name, groups[name]) for name in order]

    def killers(self, row_id: str) -> list[tuple[Planted, str]]:
        """The planted faults that prove this row, each with how it was seen: falsified, warning, or in rehearsal."""
        faults = self.severity.faults if self.severity else ()
        return [(fault, kill.how) for fault in faults for kill in fault.proofs if kill.row == row_id]


@cache
def committed(root: Path) -> Committed:
    """The committed records of a project."""
    severity = root / SEVERITY
    return Committed(read_record(root / TRIAL), read_severity(severity) if severity.is_file() else None)


def _stem(finding: Finding) -> str:
    return finding.name.split("/", 1)[0]


def _told(name: str, findings: list[Finding]) -> Told:
    rates = [f"{finding.error_rate:g}" for finding in findings if finding.error_rate is not None]
    return Told(
        name=name,
        points=len(findings),
        rule=_one_of(finding.rule for finding in findings),
        limit=_one_of(finding.limit for finding in findings),
        error_rate=_one_of(rates),
        detectable=_one_of(finding.detectable for finding in findings),
        verdicts=", ".join(dict.fromkeys(finding.verdict.value for finding in findings)),
        detail=_one_of(finding.detail for finding in findings),
    )


def _one_of(texts: Iterable[str]) -> str:
    """What they all say, or the first that says something, marked as one of several."""
    said = list(dict.fromkeys(text for text in texts if text))
    return said[0] + (" (and others)" if len(said) > 1 else "") if said else ""
