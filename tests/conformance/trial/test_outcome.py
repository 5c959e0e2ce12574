"""The exit code and the headline are computed from the rows alone, and nothing untried is green."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.catalogue import NO_DEVICE
from conformance.record import RowResult
from conformance.trial.outcome import INTERRUPTED, NOT_SELECTED, NOT_WRITTEN, exit_code, headline_verdict
from conformance.verdicts import ExitCode, Rehearsed, Verdict


def row(verdict, reason="", rehearsed=None):
    return RowResult("F-A-001", Verdict[verdict], reason=reason, rehearsed=rehearsed)


GOOD = row("CORROBORATED")
SURVIVED = row("UNTESTED", NO_DEVICE, Rehearsed.SURVIVED)
NO_GPU = row("UNTESTED", NO_DEVICE)
ELSEWHERE = row("UNTESTED", NOT_SELECTED)
ANY_ROW = st.builds(
    row,
    st.sampled_from([verdict.name for verdict in Verdict]),
    st.sampled_from(["", NO_DEVICE, NOT_SELECTED, NOT_WRITTEN, INTERRUPTED]),
    st.sampled_from([None, *Rehearsed]),
)


@pytest.mark.parametrize(
    ("rows", "rehearsal", "code"),
    [
        ([GOOD], False, ExitCode.OPEN),
        ([GOOD, row("WARNING", "x")], False, ExitCode.OPEN),
        ([GOOD, row("INCONCLUSIVE", "x")], False, ExitCode.UNDECIDED),
        ([GOOD, row("UNTESTED", NOT_WRITTEN)], True, ExitCode.UNDECIDED),
        ([GOOD, row("UNTESTED", INTERRUPTED)], True, ExitCode.UNDECIDED),
        ([GOOD, row("ERROR", "x")], False, ExitCode.HARNESS),
        ([GOOD, row("ERROR", "x"), row("FALSIFIED", "x")], False, ExitCode.FALSIFIED),
        ([GOOD, row("UNTESTED", NO_DEVICE, Rehearsed.FAILED)], True, ExitCode.FALSIFIED),
        ([GOOD, NO_GPU, SURVIVED], True, ExitCode.OPEN),
        ([GOOD, NO_GPU, SURVIVED], False, ExitCode.UNDECIDED),
        ([SURVIVED], True, ExitCode.OPEN),
        ([NO_GPU], True, ExitCode.UNDECIDED),
        ([ELSEWHERE, GOOD], False, ExitCode.OPEN),
        ([ELSEWHERE], True, ExitCode.UNDECIDED),
        ([], False, ExitCode.UNDECIDED),
    ],
)
def test_the_contract(rows, rehearsal, code):
    assert exit_code(rows, rehearsal=rehearsal) is code


def test_a_broken_trial_is_never_open():
    assert exit_code([GOOD], rehearsal=False, ended="broken") is ExitCode.HARNESS
    assert exit_code([GOOD, row("FALSIFIED", "x")], rehearsal=False, ended="broken") is ExitCode.FALSIFIED


@given(st.lists(ANY_ROW, max_size=6), st.booleans())
def test_open_means_that_something_was_tried_and_nothing_speaks_against_it(rows, rehearsal):
    if exit_code(rows, rehearsal=rehearsal) is ExitCode.OPEN:
        spoken = [each for each in rows if each.verdict is not Verdict.UNTESTED or each.reason != NOT_SELECTED]
        assert any(each.verdict is not Verdict.UNTESTED or each.rehearsed for each in spoken)
        assert {each.verdict for each in spoken} <= {Verdict.CORROBORATED, Verdict.WARNING, Verdict.UNTESTED}
        assert all(rehearsal and each.reason == NO_DEVICE for each in spoken if each.verdict is Verdict.UNTESTED)
        assert Rehearsed.FAILED not in {each.rehearsed for each in spoken}


@given(st.lists(ANY_ROW, max_size=5), ANY_ROW, st.booleans())
def test_one_more_row_never_opens_a_gate_that_is_shut_by_a_finding(rows, another, rehearsal):
    before = exit_code(rows, rehearsal=rehearsal)
    if before is ExitCode.FALSIFIED:
        assert exit_code([*rows, another], rehearsal=rehearsal) is ExitCode.FALSIFIED
    if before is ExitCode.HARNESS:
        assert exit_code([*rows, another], rehearsal=rehearsal) in {ExitCode.HARNESS, ExitCode.FALSIFIED}


def test_the_headline_is_the_worst_of_the_selected_rows():
    assert headline_verdict([GOOD, ELSEWHERE]) is Verdict.CORROBORATED
    assert headline_verdict([GOOD, NO_GPU]) is Verdict.UNTESTED
    assert headline_verdict([ELSEWHERE]) is Verdict.UNTESTED
