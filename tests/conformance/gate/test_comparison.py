"""Differences by check: nothing cancels, nothing that is no longer shown reads as mended."""

import msgspec
import pytest
import small_world as world

from conformance.comparison import Change, compare
from conformance.machine import differing
from conformance.observations import Sample
from conformance.record import RowResult
from conformance.verdicts import Verdict


def changes(before, after):
    return [(each.row, each.change) for each in compare(before, after).changes]


def test_the_same_record_has_no_difference():
    compared = compare(world.record(), world.record())

    assert compared.changes == ()
    assert compared.unlike == ()


def test_one_new_failure_and_one_mended_do_not_cancel():
    before, after = world.record({1: world.BAD}), world.record({2: world.BAD})

    assert changes(before, after) == [("F-A-002", Change.NEW_FAILURE), ("F-A-001", Change.FIXED)]


@pytest.mark.parametrize("verdict", [Verdict.UNTESTED, Verdict.INCONCLUSIVE, Verdict.ERROR])
def test_a_failure_that_is_no_longer_tried_is_not_mended(verdict):
    silent = RowResult("F-A-001", verdict, reason="x")

    assert changes(world.record({1: world.BAD}), world.record({1: silent})) == [("F-A-001", Change.NEWLY_UNTESTED)]


def test_a_rehearsal_shows_less_than_a_trial():
    compared = compare(world.record(), world.record(gpu=False))

    assert [(c.row, c.change) for c in compared.changes] == [("F-A-005", Change.NEWLY_UNTESTED)]
    assert "one of them is a rehearsal on the CPU" in compared.unlike


def test_rows_that_come_and_go():
    fewer = world.ROWS[:4]

    assert changes(world.record(), world.record(rows=fewer)) == [("F-A-005", Change.REMOVED)]
    assert changes(world.record(rows=fewer), world.record()) == [("F-A-005", Change.ADDED)]


def test_what_is_decided_now_is_told():
    assert changes(world.record({2: world.NO_PEER}), world.record()) == [("F-A-002", Change.NEWLY_DECIDED)]


def test_a_moved_limit_is_told_beside_the_verdict():
    strict = world.result(world.ROWS[0], world.SLOW, limits=world.thresholds(8.0))

    compared = compare(world.record({1: world.SLOW}), world.record({1: strict}))

    assert [(c.change, c.note) for c in compared.changes] == [(Change.THRESHOLD, "right: <= 10 ms became <= 8 ms")]


def test_a_limit_that_was_not_asked_for_is_not_a_moved_one():
    untried = RowResult("F-A-001", Verdict.UNTESTED, reason="no CUDA device")

    compared = compare(world.record({1: untried}), world.record({1: world.SLOW}))

    assert [c.change for c in compared.changes] == [Change.NEWLY_DECIDED]


@pytest.mark.parametrize(
    ("now", "note"),
    [
        ([Sample(name="right", values=[1.0] * 5, unit="s")], "right: 5 instead of 10"),
        (world.GOOD, ""),
        ([], "no longer observed: right"),
    ],
)
def test_a_survivor_with_less_evidence_is_told(now, note):
    ten = [Sample(name="right", values=[1.0] * 10, unit="s")] if note.startswith("right") else world.GOOD
    before, after = (RowResult("F-A-001", Verdict.CORROBORATED, observations=o) for o in (ten, now))

    found = compare(world.record({1: before}), world.record({1: after})).changes

    assert [c.note for c in found] == ([note] if note else [])


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ({"environment": {"cpu": {"model": "y", "cores": 2}}}, "environment: cpu.model"),
        ({"profile": "long"}, "profile"),
        ({"thresholds_sha256": "0" * 64}, "thresholds"),
    ],
)
def test_records_that_do_not_compare_say_in_what(header, word):
    unlike = compare(world.record(), world.record(**header)).unlike

    assert any(word in words for words in unlike)


def test_load_and_clocks_do_not_make_two_machines():
    busy = {"cpu": {"model": "x", "cores": 2}, "load_average": [9, 9, 9]}

    assert differing(world.record().header.environment, busy) == []


def test_a_row_without_an_observation_now_has_less():
    before = world.record()
    after = world.record({1: msgspec.structs.replace(before.rows[0], observations=[])})

    assert changes(before, after) == [("F-A-001", Change.EVIDENCE)]
