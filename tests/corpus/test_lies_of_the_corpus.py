"""Fuzzing without an oracle, and counter-examples that do not come back; the numbers are those of docs/lies.md."""

import json

import pytest
from corpus_engine import InProcess
from corpus_parsers import NoHoles, Strict

from conformance.corpus.safetensors.classes import RandomSource
from conformance.corpus.safetensors.findings import How, judge
from conformance.corpus.safetensors.hunt import hunt
from conformance.corpus.safetensors.keep import keep
from conformance.corpus.safetensors.oracle import official
from conformance.corpus.safetensors.probe import Outcome, Prober, Status
from conformance.corpus.safetensors.registry import BY_NAME, CLASSES
from conformance.corpus.safetensors.replay import Answer, replay
from conformance.corpus.safetensors.rules import Demand

REFUSED = [found for found in CLASSES if found.demand is Demand.REJECT]


@pytest.mark.parametrize("found", REFUSED, ids=lambda found: found.name)
def test_lie_18_accepting_what_is_malformed_is_seen_in_every_class(found):
    case = found.build(RandomSource(0))
    accepted = Outcome(
        Status.ACCEPTED, "file.read", 0.0, contents=official(case.data).contents or case.control_contents
    )

    assert judge(found.demand, case, accepted).how is How.WRONG_ACCEPT


def test_lie_18_the_demand_of_a_class_is_written_down_and_not_asked_of_any_reader():
    assert len(REFUSED) >= 60
    assert {found.demand for found in CLASSES} == set(Demand)


def test_lie_19_a_counter_example_comes_back_from_its_own_bytes_alone(tmp_path):
    failure = hunt(BY_NAME["offsets.hole"], Prober(InProcess(NoHoles(), tmp_path), tmp_path).try_bytes).failure
    kept = tmp_path / "kept" / keep(tmp_path / "kept", BY_NAME["offsets.hole"], failure, seed=0, command="").file
    sidecar = kept.with_suffix(".json")
    said = json.loads(sidecar.read_text())

    sidecar.write_text(json.dumps({**said, "seed": 12345, "command": "another"}))
    again = [replay(kept, Prober(InProcess(parser, tmp_path), tmp_path)).answer for parser in (NoHoles(), Strict())]

    assert again == [Answer.FAILED, Answer.FIXED]
    assert kept.read_bytes() == failure.case.data
