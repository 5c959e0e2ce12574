"""Two records side by side, by check and never by totals: what is new, what is mended, what is no longer shown."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from conformance.machine import differing
from conformance.observations import Cases, Observation, Sample
from conformance.record import Header, Record, RowResult
from conformance.verdicts import Rehearsed, Verdict


class Change(StrEnum):
    """How a row differs from its baseline."""

    NEW_FAILURE = "new failure"
    REMOVED = "removed"
    NEWLY_UNTESTED = "no longer shown"
    NEW_WARNING = "new warning"
    FIXED = "fixed"
    NEWLY_DECIDED = "newly decided"
    ADDED = "added"
    THRESHOLD = "threshold changed"
    EVIDENCE = "evidence changed"


class RowChange(msgspec.Struct, frozen=True):
    """One difference of one row; `before` and `after` are how it stands in each record, in words."""

    row: str
    change: Change
    before: str
    after: str
    note: str = ""


class Comparison(msgspec.Struct, frozen=True):
    """All differences, worst first, and why numbers of the two records may not be compared (empty: they may)."""

    baseline: str
    changes: tuple[RowChange, ...]
    unlike: tuple[str, ...]

    def having(self, change: Change) -> list[RowChange]:
        """The rows with this change, in catalogue order."""
        return [each for each in self.changes if each.change is change]


_SHOWN_STANDINGS = {"survived", "warning", "failed"}
_MUTE_STANDINGS = {"untested", "inconclusive", "error"}
_REHEARSED = "rehearsed"
_SHOWN_NAMES = 6


def compare(baseline: Record, record: Record) -> Comparison:
    """What differs in `record` from `baseline`, row by row."""
    old, new = ({row.id: row for row in each.rows} for each in (baseline, record))
    ids = list(dict.fromkeys([*(row.id for row in record.rows), *(row.id for row in baseline.rows)]))
    found = [change for row_id in ids for change in _changes(row_id, old.get(row_id), new.get(row_id))]
    order = {change: place for place, change in enumerate(Change)}
    found.sort(key=lambda each: order[each.change])
    return Comparison(baseline.header.trial_id, tuple(found), tuple(unlike(baseline.header, record.header)))


def standing(result: RowResult) -> str:
    """How a row stands, in one word; a failed rehearsal is a failure, a survived one is not more than that."""
    if result.verdict is Verdict.FALSIFIED or result.rehearsed is Rehearsed.FAILED:
        return "failed"
    if result.rehearsed is Rehearsed.SURVIVED:
        return _REHEARSED
    return "survived" if result.verdict is Verdict.CORROBORATED else result.verdict.value.lower()


def _changes(row_id: str, old: RowResult | None, new: RowResult | None) -> Iterator[RowChange]:
    if old is None or new is None:
        change = Change.ADDED if old is None else Change.REMOVED
        yield RowChange(row_id, change, standing(old) if old else "absent", standing(new) if new else "absent")
        return
    before, after = standing(old), standing(new)
    if moved := _moved(before, after):
        yield RowChange(row_id, moved, before, after, new.reason)
    elif weaker := _weaker(old, new):
        yield RowChange(row_id, Change.EVIDENCE, before, after, weaker)
    limits = {finding.name: finding.limit for finding in old.findings}
    shifted = [f for f in new.findings if f.limit and limits.get(f.name) and limits[f.name] != f.limit]
    if shifted:
        note = "; ".join(f"{f.name}: {limits[f.name]} became {f.limit}" for f in shifted[:_SHOWN_NAMES])
        yield RowChange(row_id, Change.THRESHOLD, before, after, note)


def _moved(before: str, after: str) -> Change | None:
    if before == after:
        return None
    if after == "failed":
        return Change.NEW_FAILURE
    if after in _MUTE_STANDINGS or (after == _REHEARSED and before in _SHOWN_STANDINGS):
        return Change.NEWLY_UNTESTED
    if before == "failed":
        return Change.FIXED
    if before in _SHOWN_STANDINGS:
        return Change.NEW_WARNING if after == "warning" else Change.FIXED
    return Change.NEWLY_DECIDED


def _weaker(old: RowResult, new: RowResult) -> str:
    """What a row brought before and does not bring now: an observation, runs, or examples."""
    names = {observation.name for observation in new.observations}
    gone = [observation.name for observation in old.observations if observation.name not in names]
    if gone:
        return f"no longer observed: {', '.join(gone[:_SHOWN_NAMES])}"
    now = {observation.name: _amount(observation) for observation in new.observations}
    less = [(o.name, _amount(o), now[o.name]) for o in old.observations if now[o.name] < _amount(o)]
    return "; ".join(f"{name}: {after} instead of {before}" for name, before, after in less[:_SHOWN_NAMES])


def _amount(observation: Observation) -> int:
    if isinstance(observation, Cases):
        return sum(observation.ran.values())
    return len(observation.values) if isinstance(observation, Sample) else 1


def unlike(old: Header, new: Header) -> Iterator[str]:
    """What makes two trials incomparable in speed and memory, in words; nothing where they compare."""
    if old.rehearsal != new.rehearsal:
        yield "one of them is a rehearsal on the CPU"
    if old.model.sha256 != new.model.sha256:
        yield f"weights: {old.model.name} and {new.model.name}"
    for what in ("profile", "catalogue_sha256", "thresholds_sha256"):
        if getattr(old, what) != getattr(new, what):
            yield f"{what.removesuffix('_sha256')}: {str(getattr(old, what))[:12]} and {str(getattr(new, what))[:12]}"
    if old.engine.name != new.engine.name or old.engine.precision != new.engine.precision:
        yield f"engine: {old.engine.name} {old.engine.precision} and {new.engine.name} {new.engine.precision}".strip()
    names = differing(old.environment, new.environment)
    if names:
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        yield f"environment: {', '.join(names[:_SHOWN_NAMES])}{more}"
