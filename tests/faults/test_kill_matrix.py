"""What trials show together: which rows are tried, what was seen once, what the healthy engine says."""

import msgspec

from conformance.catalogue import load_catalogue
from conformance.faults.ledger import HEALTHY, Entry
from conformance.faults.matrix import SAMPLE, judged, rows_for, surprising
from conformance.faults.planting import Fault
from conformance.faults.trying import Tried
from conformance.record import Finding, RowResult
from conformance.verdicts import Verdict

ROW, OTHER = "F-PARSE-041", "F-MEM-024"
SOUND, SEEN = Verdict.CORROBORATED, Verdict.FALSIFIED


def fault(**fields):
    plain = {
        "name": "hole", "area": "parsing", "what": "", "seen_in": "", "expects": {ROW: "files"}, "blast": (),
        "machine": "cpu", "crash": False, "early": False, "plant": lambda plant: None, "edit": None, "call_s": 1.0,
    }  # fmt: skip
    return Fault(**plain | fields)


def result(row, verdict):
    return RowResult(row, verdict, reason="x", findings=[Finding("files", verdict, "rule")])


def tried(*rows, **fields):
    return Tried([result(*row) for row in rows], [], "ran hole in 1\n", 1.0, **fields)


def entry(name, trial, machine="cpu", source="s", revision="r"):
    return Entry(fault=name, machine=machine, device=machine, revision=revision, source=source, ground="g", tried=trial)


def matrix(*entries, planted=None):
    return judged(entries, {"hole": planted or fault()})


CONTROL = entry(HEALTHY, tried((ROW, SOUND), (OTHER, SOUND)))


def test_a_fault_of_the_process_is_not_tried_on_rows_about_the_sources_and_the_other_way_round():
    section = {row.id: row.section for row in load_catalogue().rows}

    process, sources = rows_for(fault(), full=True), rows_for(fault(plant=None, edit=lambda *_: None), full=True)

    assert process[0] == ROW
    assert "build" not in {section[row] for row in process}
    assert {section[row] for row in sources if row != ROW} == {"build"}
    assert len({*process, *sources}) == len(section)


def test_the_everyday_matrix_tries_what_should_see_it_and_the_sample():
    assert rows_for(fault(), full=False) == [ROW, *SAMPLE]


def test_a_fault_is_seen_by_the_row_it_names_and_by_no_other():
    (outcome,) = matrix(CONTROL, entry("hole", tried((ROW, SEEN), (OTHER, SOUND)))).faults
    assert outcome.specific
    assert outcome.machine == "cpu"

    (outcome,) = matrix(CONTROL, entry("hole", tried((ROW, SEEN), (OTHER, SEEN)))).faults
    assert not outcome.specific
    assert outcome.collateral == [OTHER]


def test_what_changed_once_and_not_again_is_told_and_does_not_count():
    once, again = tried((ROW, SEEN), (OTHER, SEEN)), tried((OTHER, SOUND), smoked=False)
    healthy = {each.id: each for each in CONTROL.tried.rows}

    assert surprising(fault(), [once], healthy) == [OTHER]
    assert surprising(fault(), [once, again], healthy) == []
    assert surprising(fault(blast=("mem",)), [once], healthy) == []
    (outcome,) = matrix(CONTROL, entry("hole", once), entry("hole", again)).faults
    assert outcome.specific
    assert outcome.unsteady == [OTHER]


def test_what_changed_twice_counts():
    twice = tried((ROW, SEEN), (OTHER, SEEN)), tried((OTHER, SEEN), smoked=False)

    (outcome,) = matrix(CONTROL, *(entry("hole", each) for each in twice)).faults

    assert not outcome.specific


def test_later_sources_count_for_the_rows_tried_with_them():
    old = entry("hole", tried((ROW, SOUND), (OTHER, SOUND)), source="old", revision="first")
    new = entry("hole", tried((ROW, SEEN)), source="new", revision="second")

    (outcome,) = matrix(CONTROL, old, new).faults

    assert outcome.specific
    assert outcome.revision == "second"
    assert sorted(outcome.tried) == [OTHER, ROW]


def test_a_false_alarm_is_never_forgotten_and_a_second_control_is_what_faults_are_held_against():
    alarm = entry(HEALTHY, tried((ROW, SOUND), (OTHER, SEEN)))
    second = entry(HEALTHY, tried((OTHER, SOUND)))

    found = matrix(alarm, second, entry("hole", tried((ROW, SEEN), (OTHER, SOUND))))

    assert found.false_alarms == [OTHER]
    assert found.faults[0].specific
    assert found.parts[0].healthy[OTHER] == "CORROBORATED"
    assert found.parts[0].healthy_runs == 3


def test_without_a_healthy_control_nothing_is_seen():
    (outcome,) = matrix(entry("hole", tried((ROW, SEEN)))).faults

    assert not outcome.specific
    assert outcome.killed_by == []


def test_a_row_that_its_trial_did_not_come_to_is_told_and_counts_only_where_it_was_expected():
    other = entry("hole", tried((ROW, SEEN), lost=[OTHER], cause="no result within 1 s"))
    expected = entry("hole", tried((OTHER, SOUND), lost=[ROW], cause="no result within 1 s"))

    assert matrix(CONTROL, other).faults[0].specific
    assert matrix(CONTROL, other).faults[0].lost == [OTHER]
    assert not matrix(CONTROL, expected).faults[0].specific


def test_machines_are_kept_apart():
    gpu = [
        msgspec.structs.replace(each, machine="gpu")
        for each in (CONTROL, entry("hole", tried((ROW, SOUND), (OTHER, SOUND))))
    ]

    found = matrix(CONTROL, entry("hole", tried((ROW, SEEN), (OTHER, SOUND))), *gpu)

    assert [part.machine for part in found.parts] == ["cpu", "gpu"]
    assert {outcome.machine: outcome.specific for outcome in found.faults} == {"cpu": True, "gpu": False}
