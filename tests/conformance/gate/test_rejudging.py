"""A stored record is judged again: the same by the same thresholds, honestly otherwise by others."""

import msgspec
import small_world as world

from conformance.record import RowResult
from conformance.rejudging import changed, contradictions, rejudge
from conformance.verdicts import ExitCode, Rehearsed, Verdict


def test_the_same_thresholds_change_nothing():
    record = world.record({1: world.BAD, 2: world.NO_PEER, 3: world.SLOW})

    assert rejudge(record, world.catalogue(), world.thresholds()) == record
    assert contradictions(record, world.catalogue(), world.thresholds()) == []


def test_a_stricter_threshold_falsifies_and_moves_the_exit_code():
    record = world.record({3: world.SLOW})

    after = rejudge(record, world.catalogue(), world.thresholds(5.0))

    assert [(r.before.verdict, r.after.id, r.after.verdict) for r in changed(record, after)] == [
        (Verdict.CORROBORATED, "F-A-003", Verdict.FALSIFIED)
    ]
    assert record.footer.exit_code is ExitCode.OPEN
    assert after.footer.exit_code is ExitCode.FALSIFIED
    assert after.header.thresholds_sha256 == world.thresholds(5.0).sha256
    assert after.rows[2].observations == record.rows[2].observations


def test_a_rehearsal_stays_a_rehearsal():
    after = rejudge(world.record({5: world.SLOW}, gpu=False), world.catalogue(), world.thresholds(5.0))

    assert after.rows[4].verdict is Verdict.UNTESTED
    assert after.rows[4].rehearsed is Rehearsed.FAILED


def test_an_error_of_the_harness_is_not_judged_away():
    broken = RowResult("F-A-001", Verdict.ERROR, reason="OSError: full", observations=world.GOOD)

    assert rejudge(world.record({1: broken}), world.catalogue(), world.thresholds()).rows[0] == broken


def test_an_error_of_the_judge_is_judged_again():
    unlimited = msgspec.structs.replace(world.thresholds(), rows={})
    record = world.record({1: world.result(world.ROWS[0], world.SLOW, limits=unlimited)})

    assert record.rows[0].verdict is Verdict.ERROR
    assert rejudge(record, world.catalogue(), world.thresholds()).rows[0].verdict is Verdict.CORROBORATED


def test_rows_nobody_tried_and_rows_of_another_catalogue_stay():
    record = world.record({1: RowResult("F-A-001", Verdict.UNTESTED, reason="not selected")})

    after = rejudge(record, world.catalogue(world.ROWS[:2]), world.thresholds(1.0))

    assert after.rows[0] == record.rows[0]
    assert after.rows[2:] == record.rows[2:]
