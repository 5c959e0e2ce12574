"""Judge a stored record again: by the same thresholds it must come out the same, by others it shows what changes."""

from __future__ import annotations

import msgspec

from conformance.catalogue import Catalogue, Row
from conformance.judge import Situation, judge
from conformance.record import Record, RowResult, counts
from conformance.thresholds import Thresholds
from conformance.trial.outcome import exit_code, headline_verdict
from conformance.verdicts import Verdict


class Rejudged(msgspec.Struct, frozen=True):
    """A row whose verdict comes out differently: what the record says, and what follows from its observations."""

    before: RowResult
    after: RowResult


def rejudge(record: Record, catalogue: Catalogue, thresholds: Thresholds) -> Record:
    """The record as it would be had it been judged by these thresholds; rows nobody tried stay as they are."""
    situation = Situation(gpu=not record.header.rehearsal, is_reference=record.header.engine.is_reference)
    known = {row.id: row for row in catalogue.rows}
    rows = [_again(result, known, thresholds, situation) if result.id in known else result for result in record.rows]
    header = msgspec.structs.replace(
        record.header, thresholds_sha256=thresholds.sha256, catalogue_sha256=catalogue.sha256
    )
    footer = record.footer and msgspec.structs.replace(
        record.footer,
        exit_code=exit_code(rows, rehearsal=header.rehearsal, ended=record.footer.ended),
        counts=counts(rows),
        verdict=headline_verdict(rows),
    )
    return Record(header, rows, footer)


def changed(before: Record, after: Record) -> list[Rejudged]:
    """The rows whose verdict, rehearsal or reason differ."""
    pairs = zip(before.rows, after.rows, strict=True)
    return [Rejudged(old, new) for old, new in pairs if _said(old) != _said(new)]


def contradictions(record: Record, catalogue: Catalogue, thresholds: Thresholds) -> list[str]:
    """The rows whose stored verdict does not follow from their own observations: nobody should believe them."""
    again = rejudge(record, catalogue, thresholds)
    return [
        old.id
        for old, new in zip(record.rows, again.rows, strict=True)
        if (old.verdict, old.rehearsed) != (new.verdict, new.rehearsed)
    ]


def _said(result: RowResult) -> tuple[object, ...]:
    return (result.verdict, result.rehearsed, result.reason)


def _again(result: RowResult, known: dict[str, Row], thresholds: Thresholds, situation: Situation) -> RowResult:
    if not _judged(result):
        return result
    row = known[result.id]
    judgement = judge(row, result.observations, thresholds, situation)
    return msgspec.structs.replace(
        result,
        verdict=judgement.verdict,
        reason=judgement.reason,
        rehearsed=judgement.rehearsed,
        findings=judgement.findings,
    )


def _judged(result: RowResult) -> bool:
    """Whether the verdict came from the judge: not where nobody tried, nor where the harness itself broke."""
    if result.verdict is Verdict.UNTESTED and result.rehearsed is None:
        return bool(result.observations)
    if result.verdict is not Verdict.ERROR:
        return True
    return any(f.verdict is Verdict.ERROR and result.reason == f"{f.name}: {f.detail}" for f in result.findings)
