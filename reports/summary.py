"""What a record says as a whole: the one computation of counts and headline that every report shares.

Counts are taken from the rows, never from a stored total; where the two disagree the summary says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from conformance.catalogue import Catalogue, Row, Section
from conformance.record import Record, RowResult, counts
from conformance.trial.outcome import contradictions
from conformance.verdicts import ExitCode, Rehearsed, Verdict, roll_up
from reports.text import listed, plural

GLYPH: dict[Verdict, str] = {
    Verdict.CORROBORATED: "✓",
    Verdict.FALSIFIED: "✗",
    Verdict.WARNING: "!",
    Verdict.INCONCLUSIVE: "?",
    Verdict.UNTESTED: "\N{EN DASH}",
    Verdict.ERROR: "E",
}
READING_ORDER = (
    Verdict.FALSIFIED,
    Verdict.ERROR,
    Verdict.INCONCLUSIVE,
    Verdict.WARNING,
    Verdict.UNTESTED,
    Verdict.CORROBORATED,
)
_UNKNOWN_SECTION = Section("unknown", "?", "Not in this catalogue")
_EXIT_MEANING = {
    ExitCode.OPEN: "open",
    ExitCode.FALSIFIED: "shut, exit code 1 (falsified)",
    ExitCode.USAGE: "shut, exit code 2 (usage)",
    ExitCode.UNDECIDED: "shut, exit code 3 (undecided or untested beyond what the gate allows)",
    ExitCode.HARNESS: "shut, exit code 4 (the harness failed)",
}


class Entry(msgspec.Struct, frozen=True):
    """A row of the catalogue with what the record says of it."""

    row: Row
    section: Section
    result: RowResult

    @property
    def rehearsal_failed(self) -> bool:
        """True where the CPU path violated the criterion although the row itself is UNTESTED."""
        return self.result.rehearsed is Rehearsed.FAILED

    @property
    def tried(self) -> bool:
        """True where a check ran and said something, be it only in rehearsal."""
        return self.result.verdict is not Verdict.UNTESTED or self.result.rehearsed is not None


class Problem(msgspec.Struct, frozen=True):
    """A reason not to compare or quote a record; a grave one is a reason not to trust it at all."""

    text: str
    grave: bool = False


class Summary(msgspec.Struct, frozen=True):
    """The whole of a record in a few words."""

    entries: tuple[Entry, ...]
    counts: dict[str, int]
    verdict: Verdict
    headline: str
    detail: str
    gate: str
    gate_open: bool
    problems: tuple[Problem, ...]

    def having(self, verdict: Verdict) -> list[Entry]:
        """The entries with this verdict, in catalogue order."""
        return [entry for entry in self.entries if entry.result.verdict is verdict]

    @property
    def trustworthy(self) -> bool:
        """False where the record is cut short or contradicts itself."""
        return not any(problem.grave for problem in self.problems)

    @property
    def blockers(self) -> list[Entry]:
        """The rows that shut the gate by themselves, or, where none failed, those that left it undecided."""
        failed = self.having(Verdict.FALSIFIED) + self.having(Verdict.ERROR) + self.failed_rehearsals
        if failed or self.gate_open:
            return failed
        return self.having(Verdict.INCONCLUSIVE) + [e for e in self.having(Verdict.UNTESTED) if not e.result.rehearsed]

    @property
    def failed_rehearsals(self) -> list[Entry]:
        """The rows whose CPU path failed."""
        return [entry for entry in self.entries if entry.rehearsal_failed]


def summarise(record: Record, catalogue: Catalogue) -> Summary:
    """Join a record with the catalogue and say what it amounts to."""
    entries = _join(record, catalogue)
    results = [entry.result for entry in entries]
    verdict = roll_up(result.verdict for result in results)
    problems = tuple(_problems(record, catalogue, results))
    return Summary(
        entries=entries,
        counts=counts(results),
        verdict=verdict,
        headline=_headline(record, verdict, results, trusted=not any(problem.grave for problem in problems)),
        detail=_detail(results),
        gate=_gate(record, problems),
        gate_open=_is_open(record, problems),
        problems=problems,
    )


def reasons(entries: Iterable[Entry]) -> list[tuple[str, int]]:
    """The reasons of these rows with their frequency, most frequent first, ties in order of appearance."""
    return Counter(entry.result.reason or "no reason given" for entry in entries).most_common()


def weights_tried(summary: Summary) -> list[tuple[str, int]]:
    """On which weights how many rows were tried; an empty name where a row needs none."""
    tried = Counter(entry.result.weights for entry in summary.entries if entry.tried)
    return tried.most_common()


def _join(record: Record, catalogue: Catalogue) -> tuple[Entry, ...]:
    results = {result.id: result for result in record.rows}
    absent = "not among the rows that the record expects"
    entries = [
        Entry(
            row,
            catalogue.section(row.section),
            results.pop(row.id, RowResult(row.id, Verdict.UNTESTED, reason=absent)),
        )
        for row in catalogue.rows
    ]
    entries += [Entry(_unknown(result.id), _UNKNOWN_SECTION, result) for result in results.values()]
    return tuple(entries)


def _unknown(row_id: str) -> Row:
    return Row(row_id, _UNKNOWN_SECTION.key, "a row that this catalogue does not have", "unknown", "FAIL")


def _problems(record: Record, catalogue: Catalogue, results: list[RowResult]) -> Iterable[Problem]:
    yield from _breaches(record, results)
    header = record.header
    if header.catalogue_sha256 != catalogue.sha256:
        text = "The record was made with another catalogue; the criteria shown may not be those it was judged by."
        yield Problem(text)
    if header.rows != [row.id for row in catalogue.rows]:
        text = f"The record expects {plural(len(header.rows), 'row')}, this catalogue has {len(catalogue.rows)}."
        yield Problem(text)
    if len(header.selected) < len(header.rows):
        yield Problem(f"A partial trial: {len(header.selected)} of {plural(len(header.rows), 'row')} selected.")
    if header.revision_dirty:
        yield Problem("The harness had uncommitted changes; its revision does not say what was run.")


def _breaches(record: Record, results: list[RowResult]) -> Iterable[Problem]:
    footer = record.footer
    if footer is None:
        yield Problem("The record is truncated: the harness was killed before it could finish.", grave=True)
        return
    if footer.ended != "completed":
        how = footer.ended if footer.ended in {"interrupted", "broken"} else "cut short in an unknown way"
        yield Problem(f"The trial did not complete: it was {how}.", grave=True)
    if Counter(footer.counts) != Counter(counts(record.rows)):
        text = "The footer's counts disagree with the rows; the counts shown are taken from the rows."
        yield Problem(text, grave=True)
    yield from (Problem(text, grave=True) for text in contradictions(record))
    unexplained = [r.id for r in results if r.verdict is not Verdict.CORROBORATED and not r.reason]
    if unexplained:
        yield Problem(f"Without a reason: {listed(unexplained)}.", grave=True)


def _headline(record: Record, verdict: Verdict, results: list[RowResult], *, trusted: bool) -> str:
    claim = _claim(record, verdict, results)
    if not trusted and verdict in {Verdict.CORROBORATED, Verdict.WARNING}:
        claim = "No verdict: the record cannot be trusted."
    return f"REHEARSAL on the CPU: nothing was shown about the GPU. {claim}" if record.header.rehearsal else claim


def _claim(record: Record, verdict: Verdict, results: list[RowResult]) -> str:
    total = len(results)
    number = sum(result.verdict is verdict for result in results)
    rehearsal_failed = sum(result.rehearsed is Rehearsed.FAILED for result in results)
    decided = verdict in {Verdict.FALSIFIED, Verdict.ERROR}
    if rehearsal_failed and not decided:
        return f"The CPU path failed in {plural(rehearsal_failed, 'test')} that a GPU would be judged by."
    if record.truncated and not decided:
        return f"No verdict: the record is truncated, {number} of {total} tests have no result."
    survived = sum(result.verdict is Verdict.CORROBORATED for result in results)
    their = "its" if number == 1 else "their"
    return {
        Verdict.FALSIFIED: f"Falsified: {number} of {total} tests violated {their} criterion.",
        Verdict.ERROR: f"No verdict: the harness failed on {number} of {total} tests.",
        Verdict.UNTESTED: f"Not shown: {number} of {total} tests did not take place; {survived} were survived.",
        Verdict.INCONCLUSIVE: f"Not decided: {number} of {total} measurements say nothing either way.",
        Verdict.WARNING: f"Survived: nothing is falsified, {plural(number, 'warning')} in {total} tests.",
        Verdict.CORROBORATED: f"Survived: all {total} tests were run and none falsified the claim.",
    }[verdict]


def _detail(results: list[RowResult]) -> str:
    tally = Counter(result.verdict for result in results)
    parts = [f"{tally[verdict]} {verdict.value.lower()}" for verdict in READING_ORDER if tally[verdict]]
    rehearsed = Counter(result.rehearsed for result in results if result.rehearsed)
    if rehearsed:
        survived, failed = rehearsed[Rehearsed.SURVIVED], rehearsed[Rehearsed.FAILED]
        parts.append(f"of the untested, {survived} survived and {failed} failed a rehearsal on the CPU")
    return " · ".join(parts)


def _is_open(record: Record, problems: Iterable[Problem]) -> bool:
    stated = record.footer is not None and record.footer.exit_code is ExitCode.OPEN
    return stated and not any(problem.grave for problem in problems)


def _gate(record: Record, problems: Iterable[Problem]) -> str:
    if record.footer is None:
        return "shut (the record is truncated)"
    if record.footer.exit_code is ExitCode.OPEN and not _is_open(record, problems):
        return "shut (the record says open, but cannot be trusted)"
    meaning = _EXIT_MEANING[record.footer.exit_code]
    if record.footer.exit_code is ExitCode.OPEN and record.header.rehearsal:
        return f"{meaning}, for a rehearsal: it says nothing about the GPU"
    if record.footer.exit_code is ExitCode.OPEN and len(record.header.selected) < len(record.header.rows):
        return f"{meaning}, for the selected rows only"
    return meaning
