"""Trials are kept as they end, and count for the sources they were made with."""

import pytest

from conformance.faults.ledger import BrokenLedger, Entry, Ledger, source_of
from conformance.faults.planting import known_faults
from conformance.faults.trying import Tried
from conformance.record import RowResult
from conformance.verdicts import Verdict

TWO = '''
from conformance.faults.planting import fault

SHARED = {shared}

@fault(expects={{"F-PARSE-041": "{observation}"}})
def first(plant):
    """First."""
    plant.replace(1, "a", lambda original: {first})

@fault(expects={{"F-PARSE-041": "files"}}, call_s=9.0)
def second(plant):
    """Second."""
'''


def entry(fault="hole", source="s", rows=("F-PARSE-041",)):
    results = [RowResult(row, Verdict.FALSIFIED, reason="x") for row in rows]
    tried = Tried(results, [], f"ran {fault} in 1\n", 1.0)
    return Entry(fault=fault, machine="cpu", device="c", revision="r", source=source, ground="g", tried=tried)


def sources(tmp_path, **text):
    path = tmp_path / f"module{len(list(tmp_path.iterdir()))}.py"
    path.write_text(TWO.format(**{"shared": 1, "observation": "files", "first": 2} | text))
    return {name: source_of(planted) for name, planted in known_faults(path).items()}


def test_trials_are_read_again_in_their_order(tmp_path):
    ledger = Ledger(tmp_path / "tried")
    for name in ("hole", "overlap", "hole"):
        ledger.add(entry(name))

    again = Ledger(tmp_path / "tried")

    assert [each.fault for each in again.entries] == ["hole", "overlap", "hole"]
    assert again.entries == ledger.entries


def test_trials_of_other_sources_do_not_count(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add(entry(source="old"))

    assert ledger.of("hole", "cpu", "new") == []
    assert len(ledger.of("hole", "cpu", "old")) == 1
    assert ledger.of("hole", "gpu", "old") == []


def test_a_file_cut_short_is_named_and_a_file_beside_is_none_of_it(tmp_path):
    Ledger(tmp_path).add(entry())
    (tmp_path / ".00001-cpu-hole.json.99").write_text("{")
    assert len(Ledger(tmp_path).entries) == 1
    (tmp_path / "00001-cpu-hole.json").write_text('{"fault": "hole"')

    with pytest.raises(BrokenLedger, match="00001-cpu-hole"):
        Ledger(tmp_path)


def test_a_fault_is_tried_anew_when_its_own_code_or_what_it_shares_changes(tmp_path):
    before = sources(tmp_path)

    own, shared = sources(tmp_path, first=3), sources(tmp_path, shared=2)

    assert own["first"] != before["first"]
    assert own["second"] == before["second"]
    assert shared["second"] != before["second"]


def test_what_a_fault_expects_is_judged_anew_and_needs_no_new_trial(tmp_path):
    kept = sources(tmp_path, observation="engine")["second"]

    assert kept == sources(tmp_path)["second"]


def test_the_healthy_engine_counts_for_the_ground_alone():
    assert source_of(None) == source_of(None)
    assert source_of(None) not in {source_of(planted) for planted in known_faults().values()}
