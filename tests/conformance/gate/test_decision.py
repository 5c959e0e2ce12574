"""Each way in which a gate could wrongly open, tried; and the few in which it may."""

from datetime import date

import msgspec
import pytest
import small_world as world
from hypothesis import given
from hypothesis import strategies as st

from conformance.catalogue import NO_DEVICE
from conformance.comparison import compare
from conformance.gate.decision import decide
from conformance.gate.policy import AllowedUntested, KnownFailure, Policy
from conformance.observations import Equal, Missing, Undecided
from conformance.record import Record, RowResult
from conformance.verdicts import ExitCode, Rehearsed, Verdict

TODAY = date(2026, 11, 24)
KNOWN = KnownFailure("F-A-001", ("right",), "being mended", "https://example.org/issues/7", date(2026, 11, 24))
NO_PEER = AllowedUntested("F-A-002", "no peer installed", "the runner has none")


def gate(record, policy=None, **given):
    limits, rows = given.pop("limits", world.thresholds()), given.pop("catalogue", world.catalogue())
    return decide(record, policy or Policy(), rows, limits, today=TODAY, **given)


def told(decision):
    return " ".join(f"{cause.row} {cause.words}" for cause in decision.causes)


# --- open -------------------------------------------------------------------------------------------------


def test_a_whole_record_of_survivors_opens_it():
    decision = gate(world.record())

    assert decision.open
    assert decision.causes == ()


def test_a_rehearsal_opens_it_where_only_the_device_is_missing():
    decision = gate(world.record(gpu=False))

    assert decision.open
    assert decision.rehearsal


def test_a_known_failure_is_let_through_on_its_last_day():
    decision = gate(world.record({1: world.BAD}), Policy(known_failure=(KNOWN,)))

    assert decision.open
    assert decision.excused == (("F-A-001", "known until 2026-11-24: being mended (https://example.org/issues/7)"),)


def test_a_row_may_be_untested_for_the_reason_that_is_given():
    assert gate(world.record({2: world.NO_PEER}), Policy(untested=(NO_PEER,))).open


def test_a_warning_passes_unless_the_file_says_otherwise():
    softer = (msgspec.structs.replace(world.ROWS[0], severity="WARNING"), *world.ROWS[1:])
    record = world.record({1: world.result(softer[0], world.BAD)}, rows=softer)

    assert gate(record, catalogue=world.catalogue(softer)).open
    assert gate(record, Policy(warnings="fail"), catalogue=world.catalogue(softer)).code is ExitCode.FALSIFIED


# --- shut -------------------------------------------------------------------------------------------------


def test_a_failure_that_nobody_knows():
    decision = gate(world.record({3: world.BAD}), Policy(known_failure=()))

    assert decision.code is ExitCode.FALSIFIED
    assert "F-A-003 right: expected 1, observed 2" in told(decision)


def test_a_known_failure_the_day_after_it_expired():
    expired = msgspec.structs.replace(KNOWN, expires=date(2026, 11, 23))

    decision = gate(world.record({1: world.BAD}), Policy(known_failure=(expired,)))

    assert decision.code is ExitCode.FALSIFIED
    assert "ended on 2026-11-23" in told(decision)


def test_a_known_failure_that_no_longer_fails():
    decision = gate(world.record(), Policy(known_failure=(KNOWN,)))

    assert decision.code is ExitCode.USAGE
    assert "no longer fails (corroborated): remove its entry" in told(decision)


def test_a_known_failure_of_which_one_observation_is_mended():
    wide = (msgspec.structs.replace(world.ROWS[0], observes=("right", "left")), *world.ROWS[1:])
    left = Equal(name="left", expected=1, observed=1)
    record = world.record({1: world.result(wide[0], [*world.BAD, left])}, rows=wide)
    known = msgspec.structs.replace(KNOWN, observations=("right", "left"))

    decision = gate(record, Policy(known_failure=(known,)), catalogue=world.catalogue(wide))

    assert decision.code is ExitCode.USAGE
    assert "known to fail in left, which no longer fails" in told(decision)


def test_a_new_failure_in_a_row_that_is_known_to_fail_otherwise():
    wide = (msgspec.structs.replace(world.ROWS[0], observes=("right", "left")), *world.ROWS[1:])
    left = Equal(name="left", expected=1, observed=2)
    record = world.record({1: world.result(wide[0], [*world.BAD, left])}, rows=wide)

    decision = gate(record, Policy(known_failure=(KNOWN,)), catalogue=world.catalogue(wide))

    assert decision.code is ExitCode.FALSIFIED
    assert "not in left, right" in told(decision)


def test_an_error_of_the_harness_behind_a_known_failure():
    twice = [*world.BAD, *world.GOOD]
    record = world.record({1: world.result(world.ROWS[0], twice)})

    assert gate(record, Policy(known_failure=(KNOWN,))).code is ExitCode.HARNESS


def test_a_known_failure_that_was_not_tried_at_all():
    decision = gate(world.record({1: world.NO_PEER}), Policy(known_failure=(KNOWN,)))

    assert decision.code is ExitCode.USAGE
    assert "not tested" in told(decision)


def test_a_row_that_is_untested_for_another_reason():
    other = [*[msgspec.structs.replace(world.NO_PEER[0], reason="blocked by F-BUILD-001")]]

    assert gate(world.record({2: other}), Policy(untested=(NO_PEER,))).code is ExitCode.UNDECIDED


def test_an_allowance_for_a_row_that_was_tried():
    decision = gate(world.record(), Policy(untested=(NO_PEER,)))

    assert decision.code is ExitCode.USAGE
    assert "it was tried: remove its entry" in told(decision)


def test_an_allowance_to_be_untested_does_not_excuse_a_failure():
    assert gate(world.record({2: world.BAD}), Policy(untested=(NO_PEER,))).code is ExitCode.FALSIFIED


def test_an_allowance_to_be_untested_does_not_excuse_a_measurement_that_says_nothing():
    noisy = [Undecided(name="right", reason="another process used the GPU")]

    decision = gate(world.record({2: noisy}), Policy(untested=(NO_PEER,)))

    assert not decision.open
    assert "F-A-002 not decided: right: another process used the GPU" in told(decision)


def test_a_failed_rehearsal():
    record = world.record({5: world.BAD}, gpu=False)

    assert record.rows[4].rehearsed is Rehearsed.FAILED
    assert gate(record).code is ExitCode.FALSIFIED


def test_a_row_without_a_device_in_a_trial_that_is_no_rehearsal():
    lost = RowResult("F-A-005", Verdict.UNTESTED, reason="no CUDA device")

    assert gate(world.record({5: lost})).code is ExitCode.UNDECIDED


def test_a_required_row_that_was_only_rehearsed():
    decision = gate(world.record(gpu=False), Policy(required=("F-A-005",)))

    assert decision.code is ExitCode.UNDECIDED
    assert "required, and untested" in told(decision)


def test_a_rehearsal_where_a_gpu_is_demanded():
    assert gate(world.record(gpu=False), Policy(require_gpu=True)).code is ExitCode.UNDECIDED


def test_a_partial_record():
    decision = gate(world.record(selected=["F-A-001"]))

    assert decision.code is ExitCode.UNDECIDED
    assert "a partial record: 1 of 5 rows" in told(decision)


def test_a_partial_record_cannot_be_allowed_row_by_row():
    away = {n: RowResult(f"F-A-00{n}", Verdict.UNTESTED, reason="not selected") for n in (2, 3, 4, 5)}
    allowed = tuple(AllowedUntested(f"F-A-00{n}", "not selected", "quick") for n in (2, 3, 4, 5))

    record = world.record(away, selected=["F-A-001"])

    assert gate(record, Policy(untested=allowed)).code is ExitCode.UNDECIDED


def test_a_truncated_record():
    whole = world.record()

    assert gate(Record(whole.header, whole.rows, None)).code is ExitCode.HARNESS


@pytest.mark.parametrize(("ended", "code"), [("broken", ExitCode.HARNESS), ("interrupted", ExitCode.UNDECIDED)])
def test_a_trial_that_did_not_complete(ended, code):
    assert gate(world.record(ended=ended)).code is code


def test_a_record_in_which_nothing_was_tried():
    nothing = {n: RowResult(f"F-A-00{n}", Verdict.UNTESTED, reason="no CUDA device") for n in range(1, 6)}

    assert gate(world.record(nothing, gpu=False)).code is ExitCode.UNDECIDED


def test_a_record_with_fewer_rows_than_the_catalogue():
    assert gate(world.record(rows=world.ROWS[:4])).code is ExitCode.USAGE


def test_a_record_judged_by_other_thresholds():
    decision = gate(world.record(), limits=world.thresholds(5.0))

    assert decision.code is ExitCode.USAGE
    assert "falsify rejudge" in told(decision)


def test_a_verdict_that_was_written_over():
    failed = world.record({3: world.BAD})
    forged = msgspec.structs.replace(failed.rows[2], verdict=Verdict.CORROBORATED, reason="")

    decision = gate(world.record({3: forged}))

    assert decision.code is ExitCode.HARNESS
    assert "F-A-003 its verdict does not follow from its own observations" in told(decision)


def test_a_survivor_without_any_observation():
    assert gate(world.record({3: RowResult("F-A-003", Verdict.CORROBORATED)})).code is ExitCode.HARNESS


def test_a_rehearsal_that_is_only_claimed():
    claimed = RowResult("F-A-005", Verdict.UNTESTED, reason="no CUDA device", rehearsed=Rehearsed.SURVIVED)

    assert gate(world.record({5: claimed}, gpu=False)).code is ExitCode.HARNESS


@pytest.mark.parametrize("seen", [[], [Missing(name="right", reason=NO_DEVICE)]])
def test_the_want_of_a_device_excuses_no_row_that_needs_none(seen):
    idle = RowResult("F-A-003", Verdict.UNTESTED, reason=NO_DEVICE, observations=seen)

    assert not gate(world.record({3: idle}, gpu=False)).open
    assert not gate(world.record({3: world.result(world.ROWS[2], seen, gpu=False)}, gpu=False)).open


@pytest.mark.parametrize("ended", ["", "exploded", "Completed", "completed "])
def test_a_trial_that_ended_in_a_way_that_there_is_not(ended):
    assert gate(world.record(ended=ended)).code is ExitCode.HARNESS


def test_a_footer_that_says_less_than_its_rows():
    record = world.record()
    footer = msgspec.structs.replace(record.footer, exit_code=ExitCode.HARNESS)

    assert not gate(msgspec.structs.replace(record, footer=footer)).open


def test_an_error_of_the_harness():
    assert gate(world.record({4: RowResult("F-A-004", Verdict.ERROR, reason="OSError: full")})).code is ExitCode.HARNESS


# --- baseline ---------------------------------------------------------------------------------------------


def test_a_rehearsal_that_tries_less_than_its_baseline():
    before = world.record(gpu=False)
    now = world.record({5: RowResult("F-A-005", Verdict.UNTESTED, reason="no CUDA device")}, gpu=False)

    assert gate(now).open
    assert gate(now, comparison=compare(before, now)).code is ExitCode.UNDECIDED


def test_a_row_of_the_baseline_that_is_gone():
    more = (*world.ROWS, msgspec.structs.replace(world.ROWS[0], id="F-A-006"))

    decision = gate(world.record(), comparison=compare(world.record(rows=more), world.record()))

    assert decision.code is ExitCode.UNDECIDED
    assert "F-A-006 in the baseline, not in this record" in told(decision)


def test_a_failure_of_the_baseline_is_no_excuse():
    now = world.record({1: world.BAD})

    assert gate(now, comparison=compare(now, now)).code is ExitCode.FALSIFIED


def test_a_rehearsal_after_a_trial_says_that_it_does_not_compare():
    now = world.record(gpu=False)

    decision = gate(now, comparison=compare(world.record(), now))

    assert decision.open
    assert "not comparable with the baseline in one of them is a rehearsal on the CPU" in decision.notes


# --- for every record -------------------------------------------------------------------------------------

SEEN = st.dictionaries(st.integers(1, 5), st.sampled_from([world.GOOD, world.BAD, world.NO_PEER]))


@given(SEEN, st.booleans(), st.booleans())
def test_open_means_that_each_row_survived_or_is_excused_by_name(seen, gpu, knows):
    policy = Policy(known_failure=(KNOWN,) if knows else (), untested=(NO_PEER,) if knows else ())

    decision = gate(record := world.record(seen, gpu=gpu), policy)

    if decision.open:
        excused = {row for row, _ in decision.excused}
        for row in record.rows:
            without_device = not gpu and row.id == "F-A-005" and row.rehearsed is not Rehearsed.FAILED
            assert row.verdict is Verdict.CORROBORATED or row.id in excused or without_device
        assert excused == ({"F-A-001", "F-A-002"} if knows else set())
