"""Record and policy in, one decision out: pure, and shut wherever it is not shown to be open.

The order of the codes is that of the contract, with the gate file's own faults (2) between: a record that cannot be
believed is 4, then a failure that nobody excused 1, a harness error 4, a stale entry 2, something undecided 3, else 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

import msgspec

from conformance.catalogue import NO_DEVICE, Catalogue
from conformance.comparison import Change, Comparison
from conformance.gate.policy import AllowedUntested, KnownFailure, Policy
from conformance.record import Record, RowResult
from conformance.rejudging import contradictions
from conformance.thresholds import Thresholds
from conformance.trial.outcome import exit_code
from conformance.verdicts import ExitCode, Verdict

_PRECEDENCE = (ExitCode.FALSIFIED, ExitCode.HARNESS, ExitCode.USAGE, ExitCode.UNDECIDED)
_ENDINGS = {"completed", "interrupted"}
_SURVIVED = {Verdict.CORROBORATED, Verdict.WARNING}


class Cause(msgspec.Struct, frozen=True):
    """Why the gate is shut: the code it asks for, the row (empty: the record as a whole), and words."""

    code: ExitCode
    row: str
    words: str


class Decision(msgspec.Struct, frozen=True):
    """What the gate says. `excused` are the findings that the gate file lets through, in words, by row."""

    code: ExitCode
    causes: tuple[Cause, ...]
    excused: tuple[tuple[str, str], ...]
    rehearsal: bool
    notes: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """True only for exit code 0."""
        return self.code is ExitCode.OPEN


def decide(
    record: Record,
    policy: Policy,
    catalogue: Catalogue,
    thresholds: Thresholds,
    *,
    today: date,
    comparison: Comparison | None = None,
) -> Decision:
    """Apply a policy to a record, and where a baseline was given to what differs from it."""
    rehearsal = record.header.rehearsal
    notes = _notes(comparison)
    unbelievable = tuple(_unbelievable(record, catalogue, thresholds))
    if unbelievable:
        return Decision(unbelievable[0].code, unbelievable, (), rehearsal, notes)
    excuses = _Excuses(policy, catalogue, today)
    causes = [cause for row in record.rows for cause in excuses.causes(row, rehearsal=rehearsal)]
    causes += _of_the_whole(record, policy)
    causes += _stale(policy, record)
    causes += _against_baseline(record, comparison, excuses.excused)
    code = next((code for code in _PRECEDENCE if any(cause.code is code for cause in causes)), ExitCode.OPEN)
    return Decision(code, tuple(causes), tuple(excuses.excused.items()), rehearsal, notes)


def _unbelievable(record: Record, catalogue: Catalogue, thresholds: Thresholds) -> Iterator[Cause]:
    header, footer = record.header, record.footer
    if footer is None:
        yield Cause(ExitCode.HARNESS, "", "the record is truncated: the harness was killed")
    elif footer.ended == "broken":
        yield Cause(ExitCode.HARNESS, "", "the trial broke before it was complete")
    elif footer.ended not in _ENDINGS:
        yield Cause(ExitCode.HARNESS, "", f"no trial ends {footer.ended!r}")
    if header.catalogue_sha256 != catalogue.sha256 or header.rows != [row.id for row in catalogue.rows]:
        yield Cause(ExitCode.USAGE, "", "the record was made with another catalogue than this harness has")
    elif header.thresholds_sha256 != thresholds.sha256:
        yield Cause(
            ExitCode.USAGE, "", "the record was judged by other thresholds; `falsify rejudge` shows what changes"
        )
    else:
        for row_id in contradictions(record, catalogue, thresholds):
            yield Cause(ExitCode.HARNESS, row_id, "its verdict does not follow from its own observations")
        code = exit_code(record.rows, rehearsal=header.rehearsal, ended=footer.ended if footer else "completed")
        if footer is not None and footer.exit_code is not code:
            yield Cause(ExitCode.HARNESS, "", f"its footer says {footer.exit_code.value}, its rows say {code.value}")


class _Excuses:
    """The policy's entries by row, and which of them were made use of."""

    def __init__(self, policy: Policy, catalogue: Catalogue, today: date) -> None:
        self._needing_a_device = {row.id for row in catalogue.rows if row.needs_cuda}
        self._untested: dict[str, AllowedUntested] = {entry.row: entry for entry in policy.untested}
        self._known: dict[str, KnownFailure] = {entry.row: entry for entry in policy.known_failure}
        self._warnings_fail = policy.warnings == "fail"
        self._today = today
        self.excused: dict[str, str] = {}

    def causes(self, row: RowResult, *, rehearsal: bool) -> Iterator[Cause]:
        """Why this row shuts the gate; nothing if it does not."""
        if row.violates:
            yield from self._of_failure(row)
        elif row.verdict is Verdict.ERROR:
            yield Cause(ExitCode.HARNESS, row.id, row.reason)
        elif row.verdict is Verdict.WARNING and self._warnings_fail:
            yield Cause(ExitCode.FALSIFIED, row.id, f"a warning, and warnings fail here: {row.reason}")
        elif row.verdict is Verdict.INCONCLUSIVE:
            yield Cause(ExitCode.UNDECIDED, row.id, f"not decided: {row.reason}")
        elif row.verdict is Verdict.UNTESTED and not (rehearsal and self._lacks_its_device(row)):
            yield from self._of_untested(row)

    def _lacks_its_device(self, row: RowResult) -> bool:
        return row.reason == NO_DEVICE and row.id in self._needing_a_device

    def _of_failure(self, row: RowResult) -> Iterator[Cause]:
        known = self._known.get(row.id)
        names = failed_observations(row)
        if known is None:
            yield Cause(ExitCode.FALSIFIED, row.id, row.reason)
        elif known.expires < self._today:
            yield Cause(ExitCode.FALSIFIED, row.id, f"known, but the excuse ended on {known.expires}: {known.issue}")
        elif not known.covers(names):
            told = ", ".join(sorted(names)) or "no observation"
            yield Cause(ExitCode.FALSIFIED, row.id, f"known to fail in other observations, not in {told}")
        elif broken := [finding for finding in row.findings if finding.verdict is Verdict.ERROR]:
            yield Cause(ExitCode.HARNESS, row.id, f"{broken[0].name}: {broken[0].detail}")
        else:
            self.excused[row.id] = f"known until {known.expires}: {known.reason} ({known.issue})"

    def _of_untested(self, row: RowResult) -> Iterator[Cause]:
        allowed = self._untested.get(row.id)
        if allowed is None or not allowed.covers(row.reason):
            yield Cause(ExitCode.UNDECIDED, row.id, f"not tested: {row.reason}")
        else:
            self.excused[row.id] = f"may be untested: {allowed.why}"


def failed_observations(row: RowResult) -> set[str]:
    """The observations that falsify a row."""
    return {finding.name for finding in row.findings if finding.verdict is Verdict.FALSIFIED}


def _of_the_whole(record: Record, policy: Policy) -> Iterator[Cause]:
    header, footer = record.header, record.footer
    missing = [row_id for row_id in header.rows if row_id not in header.selected]
    if missing:
        told = f"a partial record: {len(header.selected)} of {len(header.rows)} rows were selected"
        yield Cause(ExitCode.UNDECIDED, "", told)
    if footer is not None and footer.ended == "interrupted":
        yield Cause(ExitCode.UNDECIDED, "", "the trial was interrupted")
    if policy.require_gpu and header.rehearsal:
        yield Cause(ExitCode.UNDECIDED, "", "a rehearsal on the CPU, and the gate file demands a GPU")
    if not any(row.verdict is not Verdict.UNTESTED or row.rehearsed for row in record.rows):
        yield Cause(ExitCode.UNDECIDED, "", "nothing at all was tried")
    for row in record.rows:
        if row.id in policy.required and row.verdict not in _SURVIVED and not row.violates:
            yield Cause(ExitCode.UNDECIDED, row.id, f"required, and {row.verdict.value.lower()}: {row.reason}")


def _stale(policy: Policy, record: Record) -> Iterator[Cause]:
    """Entries that excuse nothing any more; they would excuse the next failure unseen."""
    rows = {row.id: row for row in record.rows}
    for known in policy.known_failure:
        if not rows[known.row].violates:
            told = f"a known failure that no longer fails ({rows[known.row].verdict.value.lower()}): remove its entry"
            yield Cause(ExitCode.USAGE, known.row, told)
        elif len(rows[known.row].findings) and _unused(known, rows[known.row]):
            told = f"known to fail in {', '.join(_unused(known, rows[known.row]))}, which no longer fails"
            yield Cause(ExitCode.USAGE, known.row, told)
    for allowed in policy.untested:
        if rows[allowed.row].verdict is not Verdict.UNTESTED:
            yield Cause(ExitCode.USAGE, allowed.row, "allowed to be untested, but it was tried: remove its entry")


def _unused(known: KnownFailure, row: RowResult) -> list[str]:
    names = failed_observations(row)
    covered = names | {name.split("/")[0] for name in names}
    return [name for name in known.observations if name not in covered]


def _against_baseline(record: Record, comparison: Comparison | None, excused: dict[str, str]) -> Sequence[Cause]:
    if comparison is None:
        return []
    no_device = {row.id for row in record.rows if row.reason == NO_DEVICE and row.rehearsed is None}
    other_kind = any("rehearsal" in words for words in comparison.unlike)
    removed = [
        Cause(ExitCode.UNDECIDED, c.row, "in the baseline, not in this record")
        for c in comparison.having(Change.REMOVED)
    ]
    lost = [
        Cause(ExitCode.UNDECIDED, c.row, f"{c.before} in the baseline, {c.after} now: {c.note}")
        for c in comparison.having(Change.NEWLY_UNTESTED)
        if c.row not in excused and c.row in no_device and not other_kind
    ]
    return [*removed, *lost]


def _notes(comparison: Comparison | None) -> tuple[str, ...]:
    if comparison is None:
        return ()
    told = [f"not comparable with the baseline in {words}" for words in comparison.unlike]
    counts = [(change, len(comparison.having(change))) for change in Change]
    told += ["against the baseline: " + (", ".join(f"{n} {change.value}" for change, n in counts if n) or "no change")]
    return tuple(told)
