"""The exit code and the headline are computed from the rows alone, and nothing untried is green."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.catalogue import NO_DEVICE
from conformance.observations import Equal
from conformance.record import EngineIdentity, Finding, Footer, Header, ModelIdentity, Record, RowResult, counts
from conformance.trial.outcome import (
    INTERRUPTED,
    NOT_SELECTED,
    NOT_WRITTEN,
    contradictions,
    exit_code,
    headline_verdict,
    selected,
)
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
        ([row("WARNING", "x")], False, ExitCode.OPEN),
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


# --- what a stored record claims --------------------------------------------------------------------------


def record_of(rows, *, rehearsal=False, ended="completed", code=None, selected=None, whole=True):
    ids = [each.id for each in rows]
    header = Header(
        "1.0", "t", "now", EngineIdentity("e"), ModelIdentity("m", "random", "0"), ids,
        ids if selected is None else selected, rehearsal, 0, "r", False, "0", "0", {}, [],
    )  # fmt: skip
    right = exit_code(rows, rehearsal=rehearsal, ended=ended)
    footer = Footer(ended, "", 1.0, right if code is None else code, counts(rows), headline_verdict(rows))
    return Record(header, rows, footer if whole else None)


def shown(row_id="F-A-001", verdict=Verdict.CORROBORATED, found=(Verdict.CORROBORATED,)):
    findings = [Finding("seen", each, "rule") for each in found]
    return RowResult(row_id, verdict, observations=[Equal(name="seen", expected=1, observed=1)], findings=findings)


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ([shown()], {}),
        ([shown(found=[Verdict.CORROBORATED] * 2), shown("F-A-002")], {}),
        ([shown(verdict=Verdict.FALSIFIED, found=[Verdict.FALSIFIED, Verdict.CORROBORATED])], {}),
        ([shown(verdict=Verdict.WARNING, found=[Verdict.WARNING])], {}),
        ([row("WARNING", "x")], {}),
        ([row("ERROR", "x")], {}),
        ([shown(), NO_GPU], {"rehearsal": True}),
        ([shown(), NO_GPU], {"rehearsal": False}),
        ([shown()], {"ended": "broken"}),
        ([shown()], {"ended": "interrupted"}),
        ([shown()], {"whole": False, "selected": []}),
        ([], {}),
    ],
)
def test_an_honest_record_contradicts_itself_nowhere(rows, options):
    assert list(contradictions(record_of(rows, **options))) == []


@pytest.mark.parametrize(
    "found", [[Verdict.WARNING], [Verdict.CORROBORATED, Verdict.FALSIFIED], [Verdict.ERROR], [Verdict.UNTESTED]]
)
def test_one_finding_that_is_not_green_contradicts_a_green_row(found):
    assert list(contradictions(record_of([shown("F-A-002"), shown(found=found)]))) == [
        "F-A-001 is CORROBORATED against its own findings."
    ]


@pytest.mark.parametrize("whole", [True, False])
def test_a_green_row_without_evidence_is_told_of_a_truncated_record_too(whole):
    assert list(contradictions(record_of([GOOD, shown("F-A-002")], whole=whole))) == [
        "F-A-001 is CORROBORATED without anything observed and judged."
    ]


@pytest.mark.parametrize(
    ("rows", "options", "code", "right"),
    [
        ([shown()], {}, ExitCode.UNDECIDED, 0),
        ([shown(), NO_GPU], {}, ExitCode.OPEN, 3),
        ([shown(), NO_GPU], {"rehearsal": True}, ExitCode.UNDECIDED, 0),
        ([shown()], {"ended": "broken"}, ExitCode.OPEN, 4),
        ([shown()], {"ended": "broken"}, ExitCode.FALSIFIED, 4),
        ([row("FALSIFIED", "x")], {}, ExitCode.HARNESS, 1),
    ],
)
def test_the_exit_code_of_a_footer_is_that_of_its_rows(rows, options, code, right):
    assert list(contradictions(record_of(rows, code=code, **options))) == [
        f"The footer's exit code is {code.value}, that of its rows is {right}."
    ]


@pytest.mark.parametrize("selected", [[], ["F-A-002"], ["F-A-001", "F-A-002", "F-A-003"], ["F-A-003", "F-A-004"]])
def test_the_selection_of_a_header_is_that_of_its_rows(selected):
    rows = [shown(), shown("F-A-002")]

    assert list(contradictions(record_of(rows, selected=selected))) == [
        "The rows that say they were not selected are not those that the header leaves out."
    ]
    assert list(contradictions(record_of(rows, selected=["F-A-002", "F-A-001"]))) == []


@pytest.mark.parametrize(
    ("each", "spoken_of"),
    [
        (ELSEWHERE, False),
        (NO_GPU, True),
        (row("UNTESTED", NOT_WRITTEN), True),
        (row("UNTESTED", "a reason that sorts first"), True),
        (row("UNTESTED", "zzz"), True),
        (row("FALSIFIED", NOT_SELECTED), True),
        (row("ERROR", NOT_SELECTED), True),
        (row("WARNING", NOT_SELECTED), True),
    ],
)
def test_only_a_row_that_was_not_selected_is_not_spoken_of(each, spoken_of):
    assert selected([each]) == ([each] if spoken_of else [])


@pytest.mark.parametrize("reason", ["a lack", "no peer installed", "", "No CUDA device", "not selected, they say"])
@pytest.mark.parametrize("rehearsed", [None, Rehearsed.SURVIVED])
def test_a_rehearsal_excuses_the_want_of_a_device_and_nothing_else(reason, rehearsed):
    assert exit_code([GOOD, row("UNTESTED", reason, rehearsed)], rehearsal=True) is ExitCode.UNDECIDED


@pytest.mark.parametrize("verdict", ["INCONCLUSIVE", "ERROR", "FALSIFIED"])
def test_the_want_of_a_device_excuses_no_other_verdict(verdict):
    assert exit_code([GOOD, row(verdict, NO_DEVICE)], rehearsal=True) is not ExitCode.OPEN


@pytest.mark.parametrize("ended", ["completed", "interrupted"])
def test_only_a_broken_trial_is_the_harness_s_fault(ended):
    assert exit_code([GOOD], rehearsal=False, ended=ended) is ExitCode.OPEN


def test_a_rehearsal_that_was_read_from_a_file_is_settled_as_the_one_that_was_made():
    read = msgspec.json.decode(msgspec.json.encode([GOOD, NO_GPU, ELSEWHERE, SURVIVED]), type=list[RowResult])

    assert exit_code(read, rehearsal=True) is ExitCode.OPEN
    assert [each.reason for each in selected(read)] == ["", NO_DEVICE, NO_DEVICE]
