"""Ways in which a kill was counted that was none; the number is that of docs/lies.md."""

import pytest

from conformance.catalogue import load_catalogue
from conformance.faults.planting import Fault
from conformance.faults.specificity import judge_fault
from conformance.faults.trying import Tried
from conformance.record import Finding, RowResult
from conformance.verdicts import Rehearsed, Verdict

ROW = "F-PARSE-041"
HEALTHY = {ROW: RowResult(ROW, Verdict.CORROBORATED)}
FAULT = Fault(
    name="hole", area="parsing", what="", seen_in="", expects={ROW: "files"}, blast=(), machine="cpu", crash=False,
    early=False, plant=None, edit=None, call_s=1.0,
)  # fmt: skip


def outcome(
    verdict, *, finding="files", finds=None, witness="ran hole in 1\n", smoke=(), planted=FAULT, rehearsed=None
):
    findings = [Finding(finding, finds or verdict, "rule")]
    row = RowResult(ROW, verdict, reason="x", findings=findings, rehearsed=rehearsed)
    return judge_fault(planted, Tried([row], list(smoke), witness, 1.0), HEALTHY, load_catalogue())


def test_a_kill_is_falsified_by_the_observation_that_the_fault_names():
    seen = outcome(Verdict.FALSIFIED)

    assert seen.specific
    assert [(kill.row, kill.observation) for kill in seen.killed_by] == [(ROW, "files")]


@pytest.mark.parametrize("verdict", [Verdict.ERROR, Verdict.UNTESTED, Verdict.INCONCLUSIVE, Verdict.WARNING])
def test_lie_09_what_is_not_falsified_is_not_killed(verdict):
    unseen = outcome(verdict)

    assert unseen.killed_by == []
    assert not unseen.specific


def test_lie_09_no_result_is_no_kill():
    lost = judge_fault(FAULT, Tried([], [], "ran hole in 1\n", 1.0), HEALTHY, load_catalogue())

    assert not lost.specific


@pytest.mark.parametrize(
    "fields",
    [
        {"finding": "engine"},
        {"witness": ""},
        {"witness": "broken: no such name"},
        {"smoke": ["echoes ping: no"]},
    ],
)
def test_lie_09_a_kill_by_something_else_or_by_a_fault_that_did_not_run_is_not_specific(fields):
    assert not outcome(Verdict.FALSIFIED, **fields).specific


def test_lie_09_a_rehearsal_that_failed_is_a_kill_only_with_its_finding():
    failed = outcome(Verdict.UNTESTED, finds=Verdict.FALSIFIED, rehearsed=Rehearsed.FAILED)
    bare = outcome(Verdict.UNTESTED, rehearsed=Rehearsed.FAILED)

    assert failed.specific
    assert bare.killed_by == []
