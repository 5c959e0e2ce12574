"""The headline and the gate: never better than the record."""

import msgspec
import pytest
import sample_records as samples

from conformance.record import Footer, Record, RowResult, counts
from conformance.trial.outcome import exit_code
from conformance.verdicts import ExitCode, Rehearsed, Verdict
from reports.summary import reasons, summarise, weights_tried


def of(record: Record):
    return summarise(record, samples.CATALOGUE)


def with_one(verdict: Verdict, **fields) -> Record:
    record = samples.survived_record()
    return samples.finished(record.header, [RowResult("F-BUILD-001", verdict, **fields), *record.rows[1:]])


@pytest.mark.parametrize(
    ("verdict", "headline"),
    [
        (Verdict.FALSIFIED, "Falsified: 1 of 100 tests violated its criterion."),
        (Verdict.ERROR, "No verdict: the harness failed on 1 of 100 tests."),
        (Verdict.UNTESTED, "Not shown: 1 of 100 tests did not take place; 99 were survived."),
        (Verdict.INCONCLUSIVE, "Not decided: 1 of 100 measurements say nothing either way."),
        (Verdict.WARNING, "Survived: nothing is falsified, 1 warning in 100 tests."),
    ],
)
def test_the_headline_is_as_good_as_the_worst_row(verdict, headline):
    assert of(with_one(verdict, reason="because")).headline == headline


def test_the_headline_of_a_survival_and_of_one_without_evidence():
    assert of(samples.survived_record()).headline == "Survived: all 100 tests were run and none falsified the claim."
    assert of(with_one(Verdict.CORROBORATED)).headline == "No verdict: the record cannot be trusted."


def test_an_open_gate_of_a_rehearsal_says_nothing_about_the_gpu():
    assert of(samples.rehearsal_record()).gate == "open, for a rehearsal: it says nothing about the GPU"


def test_an_open_gate_of_a_selection_speaks_of_the_selection():
    record = samples.survived_record()
    header = msgspec.structs.replace(record.header, selected=["F-MEM-029"])
    rows = [
        row if row.id == "F-MEM-029" else RowResult(row.id, Verdict.UNTESTED, reason="not selected")
        for row in record.rows
    ]
    partial = samples.finished(header, rows, ExitCode.OPEN)

    assert of(partial).gate == "open, for the selected rows only"


def test_a_failed_rehearsal_comes_before_what_is_untested():
    record = with_one(Verdict.UNTESTED, reason="no CUDA device", rehearsed=Rehearsed.FAILED)

    assert of(record).headline == "The CPU path failed in 1 test that a GPU would be judged by."


def test_a_truncated_record_has_no_verdict_and_no_open_gate():
    record = samples.survived_record()
    lost = [*record.rows[:99], RowResult("F-INT-100", Verdict.UNTESTED, reason="no record")]
    summary = of(Record(record.header, lost, None))

    assert summary.headline == "No verdict: the record is truncated, 1 of 100 tests have no result."
    assert not summary.gate_open
    assert not summary.trustworthy


def test_a_row_without_a_reason_makes_a_record_untrustworthy():
    assert not of(with_one(Verdict.UNTESTED)).trustworthy
    assert of(with_one(Verdict.UNTESTED, reason="no peer")).trustworthy


@pytest.mark.parametrize("ended", ["interrupted", "broken", "**so** well"])
def test_a_trial_that_did_not_complete_says_so(ended):
    record = samples.survived_record()
    code = exit_code(record.rows, rehearsal=False, ended=ended)
    footer = Footer(ended, "", 1.0, code, counts(record.rows), Verdict.CORROBORATED)
    (problem,) = of(Record(record.header, record.rows, footer)).problems

    assert problem.grave
    assert "did not complete" in problem.text
    assert "**" not in problem.text


def test_a_row_that_is_not_in_the_record_is_untested():
    record = samples.survived_record()
    header = msgspec.structs.replace(record.header, rows=record.header.rows[1:])
    summary = of(Record(header, record.rows[1:], record.footer))

    assert summary.entries[0].result.verdict is Verdict.UNTESTED
    assert summary.counts["UNTESTED"] == 1


def test_a_row_that_is_not_in_the_catalogue_is_counted_and_named():
    record = samples.survived_record()
    stray = RowResult("F-NEW-101", Verdict.FALSIFIED, reason="x")
    summary = of(Record(record.header, [*record.rows, stray], record.footer))

    assert summary.entries[-1].section.title == "Not in this catalogue"
    assert summary.headline == "Falsified: 1 of 101 tests violated its criterion."


def test_no_rows_at_all_are_no_success():
    record = samples.survived_record()
    summary = of(Record(msgspec.structs.replace(record.header, rows=[]), [], record.footer))

    assert summary.verdict is Verdict.UNTESTED
    assert summary.counts["UNTESTED"] == 100


def test_reasons_are_counted_and_weights_only_where_something_was_tried():
    summary = of(samples.rehearsal_record())

    assert reasons(summary.having(Verdict.UNTESTED)) == [("no CUDA device", 42)]
    assert sum(count for _, count in weights_tried(summary)) == 100
