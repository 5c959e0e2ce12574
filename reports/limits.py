"""What a trial does not show, said on every scorecard: a survived test is not a proof."""

from __future__ import annotations

from conformance.record import Record
from conformance.verdicts import Verdict
from reports.summary import Summary
from reports.text import plural

_ALWAYS = (
    "That survival is proof. Each test could have failed and did not; the next one may.",
    "Anything outside the criteria: batching, concurrent requests, several GPUs, other architectures, energy.",
    "What the model knows. A behavioural test asks whether the engine computes it right, not whether it is right.",
    "Other machines. Speed and memory hold for the machine named above and for no other GPU, driver or load.",
    "Rare faults. Each finding states the smallest effect that its rule can detect; below it, nothing is said.",
)
_OF_MODEL = {
    "fixture": "Any real checkpoint: the rows were tried on a small model trained for this purpose.",
    "random": "Any trained checkpoint: the rows were tried on random weights.",
    "geometry": "Any trained checkpoint: the rows were tried on random weights of a real model's shapes.",
    "checkpoint": "Any checkpoint other than the one named above.",
}


def not_tested(record: Record, summary: Summary) -> list[str]:
    """What this trial says nothing about, most specific first."""
    said = []
    if record.header.rehearsal:
        said.append("The GPU. No NVIDIA device was visible; the rows that need one did not take place.")
    untested = summary.counts[Verdict.UNTESTED.value]
    if untested:
        said.append(f"{plural(untested, 'row')} of the catalogue that did not take place, for the reasons given above.")
    undecided = summary.counts[Verdict.INCONCLUSIVE.value]
    if undecided:
        said.append(f"{plural(undecided, 'row')} whose measurement could not decide.")
    said += [_OF_MODEL[record.header.model.kind]] if record.header.model.kind in _OF_MODEL else []
    return [*said, *_ALWAYS]
