"""What the gate says besides open or shut: the code of the worst cause, the row of each, the words, and the notes."""

from datetime import date

import msgspec
import pytest
import small_world as world

from conformance.comparison import Change, Comparison, RowChange, compare
from conformance.gate.decision import Cause, Decision, decide, failed_observations
from conformance.gate.policy import AllowedUntested, KnownFailure, Policy
from conformance.observations import Equal, Measured, Undecided
from conformance.record import Finding, Record, RowResult
from conformance.verdicts import ExitCode, Verdict

TODAY = date(2026, 11, 24)
KNOWN = KnownFailure("F-A-001", ("right",), "being mended", "https://e.org/7", TODAY)
ALLOWED = AllowedUntested("F-A-002", "no peer installed", "the runner has none")
NOISY = [Undecided(name="right", reason="noisy")]
BROKEN = RowResult("F-A-004", Verdict.ERROR, reason="OSError: full")
LOST = RowResult("F-A-005", Verdict.UNTESTED, reason="no CUDA device")
AWAY = {n: RowResult(f"F-A-00{n}", Verdict.UNTESTED, reason="not selected") for n in (2, 3, 4, 5)}


def gate(record, policy=None, *, rows=world.ROWS, limits=None, **given):
    return decide(record, policy or Policy(), world.catalogue(rows), limits or world.thresholds(), today=TODAY, **given)


def causes(decision):
    return [(cause.code, cause.row, cause.words) for cause in decision.causes]


def changed(row="F-A-005", change=Change.NEWLY_UNTESTED, unlike=()):
    return Comparison("before", (RowChange(row, change, "rehearsed", "untested", "no CUDA device"),), unlike)


# --- one cause each ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "policy", "cause"),
    [
        ({3: world.BAD}, {}, (ExitCode.FALSIFIED, "F-A-003", "right: expected 1, observed 2")),
        ({4: BROKEN}, {}, (ExitCode.HARNESS, "F-A-004", "OSError: full")),
        ({3: NOISY}, {}, (ExitCode.UNDECIDED, "F-A-003", "not decided: right: noisy")),
        ({2: world.NO_PEER}, {}, (ExitCode.UNDECIDED, "F-A-002", "not tested: no peer installed: llama.cpp")),
        ({5: LOST}, {}, (ExitCode.UNDECIDED, "F-A-005", "not tested: no CUDA device")),
        (
            {1: world.BAD},
            {"known_failure": (msgspec.structs.replace(KNOWN, expires=date(2026, 11, 23)),)},
            (ExitCode.FALSIFIED, "F-A-001", "known, but the excuse ended on 2026-11-23: https://e.org/7"),
        ),
        (
            {1: [*world.BAD, *world.BAD]},
            {"known_failure": (KNOWN,)},
            (ExitCode.HARNESS, "F-A-001", "contract: observed 'right' more than once"),
        ),
        (
            {1: [*world.BAD, Measured(name="left", value=1.0, unit="s")]},
            {"known_failure": (KNOWN,)},
            (ExitCode.HARNESS, "F-A-001", "left: thresholds have no `limit` for F-A-001 left"),
        ),
        (
            {},
            {"known_failure": (KNOWN,)},
            (ExitCode.USAGE, "F-A-001", "a known failure that no longer fails (corroborated): remove its entry"),
        ),
        (
            {},
            {"untested": (ALLOWED,)},
            (ExitCode.USAGE, "F-A-002", "allowed to be untested, but it was tried: remove its entry"),
        ),
    ],
)
def test_one_thing_shuts_the_gate_with_one_cause(seen, policy, cause):
    decision = gate(world.record(seen), Policy(**policy))

    assert causes(decision) == [cause]
    assert decision.code is cause[0]
    assert decision.excused == ()
    assert not decision.open


@pytest.mark.parametrize("reason", ["interrupted", "blocked by F-BUILD-001", "no peer installed", "not written"])
def test_a_rehearsal_leaves_open_what_is_untested_for_any_other_reason_than_the_device(reason):
    lost = msgspec.structs.replace(LOST, reason=reason)

    assert causes(gate(world.record({5: lost}, gpu=False))) == [
        (ExitCode.UNDECIDED, "F-A-005", f"not tested: {reason}")
    ]


def test_a_day_is_named_where_the_gate_is_asked():
    with pytest.raises(TypeError):
        decide(world.record(), Policy(), world.catalogue(), world.thresholds(), TODAY)


def test_a_warning_that_fails_here_is_told_as_one():
    softer = (msgspec.structs.replace(world.ROWS[0], severity="WARNING"), *world.ROWS[1:])
    record = world.record({1: world.result(softer[0], world.BAD)}, rows=softer)

    assert causes(gate(record, Policy(warnings="fail"), rows=softer)) == [
        (ExitCode.FALSIFIED, "F-A-001", "a warning, and warnings fail here: right: expected 1, observed 2")
    ]
    assert gate(record, Policy(required=("F-A-001",)), rows=softer).open


WIDE = (msgspec.structs.replace(world.ROWS[0], observes=("right", "left", "far")), *world.ROWS[1:])
LEFT = Equal(name="left", expected=1, observed=2)
FAR = Equal(name="far/F16", expected=1, observed=2)


def test_what_is_not_among_the_known_observations_is_named_in_order():
    record = world.record({1: world.result(WIDE[0], [*world.BAD, LEFT, FAR])}, rows=WIDE)

    assert causes(gate(record, Policy(known_failure=(KNOWN,)), rows=WIDE)) == [
        (ExitCode.FALSIFIED, "F-A-001", "known to fail in other observations, not in far/F16, left, right")
    ]


def test_all_known_observations_that_no_longer_fail_are_named():
    good = [Equal(name=name, expected=1, observed=1) for name in ("left", "far/F16")]
    record = world.record({1: world.result(WIDE[0], [*world.BAD, *good])}, rows=WIDE)
    known = msgspec.structs.replace(KNOWN, observations=("left", "right", "far"))

    decision = gate(record, Policy(known_failure=(known,)), rows=WIDE)

    assert causes(decision) == [(ExitCode.USAGE, "F-A-001", "known to fail in left, far, which no longer fails")]
    assert decision.excused == (("F-A-001", "known until 2026-11-24: being mended (https://e.org/7)"),)


def test_a_variant_that_fails_keeps_the_entry_of_its_observation():
    record = world.record(
        {1: world.result(WIDE[0], [*world.GOOD, Equal(name="left", expected=1, observed=1), FAR])}, rows=WIDE
    )
    known = msgspec.structs.replace(KNOWN, observations=("far",))

    assert gate(record, Policy(known_failure=(known,)), rows=WIDE).open


def test_an_excuse_is_told_by_row():
    record = world.record({1: world.BAD, 2: world.NO_PEER})

    decision = gate(record, Policy(known_failure=(KNOWN,), untested=(ALLOWED,)))

    assert decision.open
    assert dict(decision.excused) == {
        "F-A-001": "known until 2026-11-24: being mended (https://e.org/7)",
        "F-A-002": "may be untested: the runner has none",
    }


@pytest.mark.parametrize(
    ("expires", "opens"),
    [(date(2027, 1, 1), True), (date(2026, 11, 25), True), (TODAY, True), (date(2026, 11, 23), False)],
)
def test_a_known_failure_is_excused_until_its_last_day_is_over(expires, opens):
    known = msgspec.structs.replace(KNOWN, expires=expires)

    assert gate(world.record({1: world.BAD}), Policy(known_failure=(known,))).open is opens


def test_a_failed_rehearsal_is_excused_as_a_failure_is():
    record = world.record({5: world.BAD}, gpu=False)
    known = msgspec.structs.replace(KNOWN, row="F-A-005")

    assert gate(record, Policy(known_failure=(known,))).open


# --- of the whole -----------------------------------------------------------------------------------------


def test_a_part_of_a_trial_is_told_by_its_numbers_and_each_row_left_out():
    decision = gate(world.record(AWAY, selected=["F-A-001"]))

    assert (ExitCode.UNDECIDED, "", "a partial record: 1 of 5 rows were selected") in causes(decision)
    assert [cause.row for cause in decision.causes if cause.row] == ["F-A-002", "F-A-003", "F-A-004", "F-A-005"]


def test_what_is_wrong_with_the_trial_itself_is_told_without_a_row():
    assert causes(gate(world.record(ended="interrupted"))) == [(ExitCode.UNDECIDED, "", "the trial was interrupted")]
    assert causes(gate(world.record(gpu=False), Policy(require_gpu=True))) == [
        (ExitCode.UNDECIDED, "", "a rehearsal on the CPU, and the gate file demands a GPU")
    ]
    assert gate(world.record(), Policy(require_gpu=True)).open


NEEDY = tuple(msgspec.structs.replace(row, needs=("cuda",)) for row in world.ROWS)


def test_a_trial_of_which_nothing_took_place_says_so():
    nothing = {n: RowResult(f"F-A-00{n}", Verdict.UNTESTED, reason="no CUDA device") for n in range(1, 6)}

    assert causes(gate(world.record(nothing, gpu=False, rows=NEEDY), rows=NEEDY)) == [
        (ExitCode.UNDECIDED, "", "nothing at all was tried")
    ]


SOFT = (msgspec.structs.replace(world.ROWS[0], severity="WARNING"), *NEEDY[1:])


def test_a_warning_is_something_that_was_tried():
    nothing = {n: RowResult(f"F-A-00{n}", Verdict.UNTESTED, reason="no CUDA device") for n in range(2, 6)}
    warned = world.result(SOFT[0], world.BAD)

    assert gate(world.record({1: warned, **nothing}, gpu=False, rows=SOFT), rows=SOFT).open


def test_an_allowance_is_stale_once_the_row_gives_a_warning():
    soft = tuple(msgspec.structs.replace(row, severity="WARNING") for row in world.ROWS)
    record = world.record({2: world.result(soft[1], world.BAD)}, rows=soft)

    assert causes(gate(record, Policy(untested=(ALLOWED,)), rows=soft)) == [
        (ExitCode.USAGE, "F-A-002", "allowed to be untested, but it was tried: remove its entry")
    ]


def test_one_rehearsed_row_is_something_that_was_tried():
    nothing = {n: RowResult(f"F-A-00{n}", Verdict.UNTESTED, reason="no CUDA device") for n in range(1, 5)}

    assert gate(world.record(nothing, gpu=False, rows=NEEDY), rows=NEEDY).open


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ({2: world.NO_PEER}, "required, and untested: no peer installed: llama.cpp"),
        ({2: NOISY}, "required, and inconclusive: right: noisy"),
        ({2: RowResult("F-A-002", Verdict.ERROR, reason="OSError")}, "required, and error: OSError"),
    ],
)
def test_a_required_row_that_did_not_survive_is_told_as_required(seen, told):
    assert (ExitCode.UNDECIDED, "F-A-002", told) in causes(gate(world.record(seen), Policy(required=("F-A-002",))))


def test_a_required_row_that_failed_is_told_once():
    decision = gate(world.record({2: world.BAD}), Policy(required=("F-A-002",)))

    assert [cause.row for cause in decision.causes] == ["F-A-002"]


# --- which cause decides ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "known", "code"),
    [
        ({3: world.BAD, 4: BROKEN, 2: world.NO_PEER}, True, ExitCode.FALSIFIED),
        ({4: BROKEN, 2: world.NO_PEER}, True, ExitCode.HARNESS),
        ({2: world.NO_PEER}, True, ExitCode.USAGE),
        ({2: world.NO_PEER}, False, ExitCode.UNDECIDED),
        ({}, False, ExitCode.OPEN),
    ],
)
def test_the_worst_cause_gives_the_code_and_none_is_left_out(seen, known, code):
    decision = gate(world.record(seen), Policy(known_failure=(KNOWN,) if known else ()))

    assert decision.code is code
    assert {cause.row for cause in decision.causes} == {f"F-A-00{n}" for n in seen} | ({"F-A-001"} if known else set())


def test_a_record_that_cannot_be_believed_is_not_looked_into():
    broken = world.record({3: world.BAD}, ended="broken", gpu=False)

    decision = gate(broken, Policy(known_failure=(KNOWN,)), comparison=changed())

    assert causes(decision) == [(ExitCode.HARNESS, "", "the trial broke before it was complete")]
    assert (decision.excused, decision.rehearsal) == ((), True)
    assert decision.notes == ("against the baseline: 1 no longer shown",)


def test_a_truncated_record_of_another_catalogue_is_both():
    whole = world.record(rows=world.ROWS[:4])

    decision = gate(Record(whole.header, whole.rows, None))

    assert causes(decision) == [
        (ExitCode.HARNESS, "", "the record is truncated: the harness was killed"),
        (ExitCode.USAGE, "", "the record was made with another catalogue than this harness has"),
    ]
    assert decision.code is ExitCode.HARNESS


@pytest.mark.parametrize("header", [{"catalogue_sha256": "0"}, {"catalogue_sha256": "f" * 64}])
def test_a_catalogue_of_the_same_rows_and_other_words_is_another(header):
    decision = gate(world.record(**header))

    assert causes(decision) == [
        (ExitCode.USAGE, "", "the record was made with another catalogue than this harness has")
    ]


@pytest.mark.parametrize("rows", [["F-A-001"], ["F-A-002", "F-A-001", "F-A-003", "F-A-004", "F-A-005"], []])
def test_other_rows_than_the_catalogue_has_are_not_believed_whatever_hash_they_carry(rows):
    assert gate(world.record(rows=world.ROWS), rows=world.ROWS).open
    record = world.record()
    forged = msgspec.structs.replace(record, header=msgspec.structs.replace(record.header, rows=rows))

    assert gate(forged).code is ExitCode.USAGE


@pytest.mark.parametrize("thresholds", ["0", "f" * 64, ""])
def test_limits_of_another_hash_are_others(thresholds):
    [cause] = causes(gate(world.record(thresholds_sha256=thresholds)))

    assert cause[:2] == (ExitCode.USAGE, "")
    assert cause[2].startswith("the record was judged by other thresholds")


# --- the baseline -----------------------------------------------------------------------------------------


def test_a_row_that_lost_its_rehearsal_is_told_with_before_and_after():
    decision = gate(world.record({5: LOST}, gpu=False), comparison=changed())

    assert causes(decision) == [
        (ExitCode.UNDECIDED, "F-A-005", "rehearsed in the baseline, untested now: no CUDA device")
    ]


@pytest.mark.parametrize(
    ("seen", "comparison"),
    [
        ({5: LOST}, changed(unlike=("one of them is a rehearsal on the CPU",))),
        ({5: LOST}, changed(change=Change.NEW_WARNING)),
        ({}, changed()),
        ({}, changed("F-A-001")),
        ({5: LOST}, None),
    ],
)
def test_what_is_no_loss_of_this_machine_s_own_is_no_cause(seen, comparison):
    assert gate(world.record(seen, gpu=False), comparison=comparison).causes == ()


@pytest.mark.parametrize("reason", ["no peer installed", "blocked by F-BUILD-001"])
def test_a_row_that_is_open_for_a_reason_of_its_own_is_told_once(reason):
    lost = msgspec.structs.replace(LOST, reason=reason)

    decision = gate(world.record({5: lost}, gpu=False), comparison=changed())

    assert causes(decision) == [(ExitCode.UNDECIDED, "F-A-005", f"not tested: {reason}")]


def test_a_row_whose_loss_is_excused_by_name_is_no_cause():
    allowed = AllowedUntested("F-A-002", "no peer installed", "the runner has none")
    before, now = world.record(), world.record({2: world.NO_PEER})

    assert gate(now, Policy(untested=(allowed,)), comparison=compare(before, now)).open


def test_other_trials_than_a_rehearsal_compare_in_what_is_no_longer_shown():
    decision = gate(world.record({5: LOST}, gpu=False), comparison=changed(unlike=("profile: default and quick",)))

    assert decision.code is ExitCode.UNDECIDED
    assert decision.notes == (
        "not comparable with the baseline in profile: default and quick",
        "against the baseline: 1 no longer shown",
    )


def test_the_notes_count_what_changed_and_say_so_where_nothing_did():
    now = world.record({1: world.BAD, 2: world.BAD, 3: NOISY})

    assert gate(world.record()).notes == ()
    assert gate(now, comparison=compare(now, now)).notes == ("against the baseline: no change",)
    assert gate(now, comparison=compare(world.record(), now)).notes == (
        "against the baseline: 2 new failure, 1 no longer shown",
    )


# --- pieces -----------------------------------------------------------------------------------------------


def test_only_what_was_falsified_counts_as_failed():
    findings = [Finding(verdict.value, verdict, "rule") for verdict in Verdict]

    assert failed_observations(RowResult("F-A-001", Verdict.FALSIFIED, findings=findings)) == {"FALSIFIED"}


@pytest.mark.parametrize("code", ExitCode)
def test_only_zero_is_open(code):
    assert Decision(code, (), (), False).open is (code == 0)


@pytest.mark.parametrize("made", [Cause(ExitCode.OPEN, "", ""), Decision(ExitCode.OPEN, (), (), False)])
def test_a_decision_cannot_be_changed(made):
    with pytest.raises(AttributeError):
        made.code = ExitCode.OPEN
