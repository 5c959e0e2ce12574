import msgspec
import pytest
import torch

from conformance.corpus.fixture import MODEL_DIR, planted, severity
from conformance.corpus.fixture.severity import EXCUSED, Fault, FaultReport
from conformance.corpus.goldens import load_goldens

SHORT = ("sum_bare", "raw_sum", "hello", "system_persona", "recall_name")


def committed():
    return msgspec.json.decode((MODEL_DIR / "severity.json").read_bytes(), type=list[FaultReport])


@pytest.fixture(scope="module")
def model():
    return planted.load(MODEL_DIR, torch.float32)


LONG_ONLY = {"prompt cut to its last 512 tokens", "TF32 products"}
"""Faults that only the long answers of the committed table show, none of `SHORT`."""


@pytest.fixture(scope="module")
def cases():
    return [load_goldens(MODEL_DIR).case(name) for name in SHORT]


@pytest.fixture(scope="module")
def healthy(model, cases):
    return {case.name: severity.decision_logits(model, planted.plain(case)) for case in cases}


def test_the_table_holds_every_fault_of_the_code():
    faults = {fault.name for fault in severity.all_faults(MODEL_DIR)}
    assert faults <= {report.fault for report in committed()}


def test_every_planted_fault_is_shown_but_for_the_excused_ones():
    hidden = {report.fault for report in committed() if report.planted and not report.severe}
    assert hidden == EXCUSED.keys()


def test_nothing_planted_changes_no_answer():
    sound = [report for report in committed() if not report.planted]
    assert len(sound) == 5
    assert all(report.answers_changed == 0 for report in sound)


def test_tf32_moves_logits_beyond_the_tolerance_and_f64_does_not():
    moves = {report.fault: report.largest_move for report in committed()}
    assert moves["TF32 products"] > 100 * severity.TOLERANCE
    assert moves["none, F64 compute"] < severity.TOLERANCE / 5


def test_the_goldens_are_those_of_the_reference(model, cases, healthy):
    assert severity.examine(model, Fault("none"), cases, healthy).largest_move == 0
    for case in cases:
        columns, stored = load_goldens(MODEL_DIR).logits(case)
        assert (healthy[case.name][:, columns] - torch.from_numpy(stored)).abs().max() < severity.TOLERANCE / 5


def test_faults_are_planted_anew_and_leave_nothing_behind(model, cases, healthy):
    for fault in severity.all_faults(MODEL_DIR):
        if fault.planted and fault.name not in EXCUSED.keys() | LONG_ONLY:
            assert severity.examine(model, fault, cases, healthy).severe, fault.name
    assert severity.examine(model, Fault("none"), cases, healthy).largest_move == 0


def test_a_stop_id_that_is_not_known_lets_the_answer_run_on(model, cases, healthy):
    reports = [
        severity.examine(model, Fault("one", stop_ids=frozenset({stop})), cases, healthy)
        for stop in planted.Words(MODEL_DIR).stop_ids
    ]
    assert [report.answers_changed for report in reports] == [1, 4]


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(1.0, 1.0), (1 + 2**-10, 1 + 2**-10), (1 + 2**-11, 1.0), (1 + 3 * 2**-11, 1 + 2**-9), (-1 - 2**-12, -1.0)],
)
def test_tf32_keeps_ten_bits_and_rounds_ties_to_even(value, rounded):
    assert planted.rounded_to_tf32(torch.tensor([value])).item() == rounded
