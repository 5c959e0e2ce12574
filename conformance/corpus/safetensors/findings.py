"""What an outcome means: the class's demand and the case against what the engine did. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from conformance.corpus.safetensors.builder import Contents
from conformance.corpus.safetensors.classes import WEIGHT_DTYPES, Case
from conformance.corpus.safetensors.oracle import first_difference
from conformance.corpus.safetensors.probe import Outcome, Status
from conformance.corpus.safetensors.rules import Demand
from conformance.protocol.messages import ErrorKind


class How(StrEnum):
    """In which way an engine got a file wrong, the worst first. `hang` covers time and memory without bounds."""

    CRASH = "crash"
    HANG = "hang"
    MISREAD = "misread"
    WRONG_ACCEPT = "wrong_accept"
    WRONG_REJECT = "wrong_reject"
    UNCLEAR_ERROR = "unclear_error"


@dataclass(frozen=True, slots=True)
class Finding:
    """A file got wrong. `late` marks a malformed file that was refused only when a tensor was read."""

    how: How
    detail: str
    late: bool = False


_ENDINGS = {
    Status.CRASHED: How.CRASH,
    Status.HUNG: How.HANG,
    Status.OUTGREW: How.HANG,
}


def judge(demand: Demand, case: Case, outcome: Outcome) -> Finding | None:
    """What is wrong with a case's outcome; None if it is what the class demands."""
    return judge_file(demand, case.readings, outcome)


def judge_file(demand: Demand, readings: tuple[Contents, ...] | None, outcome: Outcome) -> Finding | None:
    """What is wrong with any file's outcome, given the contents that an accepting reader may report."""
    if outcome.ended_process:
        return Finding(_ending(demand, outcome), f"{outcome.stage}: {outcome.message}")
    if outcome.status is Status.REJECTED:
        return _judge_rejection(demand, readings, outcome)
    assert outcome.contents is not None
    if demand is Demand.REJECT:
        return Finding(How.WRONG_ACCEPT, _accepted_as(outcome.contents))
    return _judge_reading(readings, outcome)


def _ending(demand: Demand, outcome: Outcome) -> How:
    """An answer that is no answer came after the file was opened: it says what the file made the engine say."""
    if outcome.status is not Status.VIOLATED:
        return _ENDINGS[outcome.status]
    if outcome.stage == "file.open":
        return How.CRASH
    return How.WRONG_ACCEPT if demand is Demand.REJECT else How.MISREAD


def judge_control(case: Case, outcome: Outcome) -> Finding | None:
    """What is wrong with how the nearest valid file was treated: it must be accepted and read exactly."""
    return judge_file(Demand.ACCEPT, (case.control_contents,), outcome)


def declined(contents: Contents, outcome: Outcome) -> bool:
    """Whether a valid file was refused for a dtype that no weight has, which an engine may do clearly."""
    foreign = any(tensor.dtype not in WEIGHT_DTYPES for tensor in contents.tensors.values())
    return (
        foreign
        and outcome.status is Status.REJECTED
        and outcome.kind == ErrorKind.UNSUPPORTED_DTYPE
        and not outcome.unclear
        and not outcome.excess
    )


def _judge_rejection(demand: Demand, readings: tuple[Contents, ...] | None, outcome: Outcome) -> Finding | None:
    said = f"{outcome.kind}: {outcome.message}"
    if demand is Demand.ACCEPT:
        assert readings is not None
        if declined(readings[0], outcome):
            return None
        return Finding(How.WRONG_REJECT, f"{outcome.stage} refused it as {said}")
    if outcome.excess:
        return Finding(How.HANG, outcome.excess)
    if demand is Demand.REJECT and outcome.stage == "file.read":
        return Finding(How.WRONG_ACCEPT, f"opened and inspected, and refused only at file.read: {said}", late=True)
    if outcome.unclear:
        return Finding(How.UNCLEAR_ERROR, f"{outcome.unclear} ({said})")
    return None


def _judge_reading(readings: tuple[Contents, ...] | None, outcome: Outcome) -> Finding | None:
    if outcome.flaw:
        return Finding(How.MISREAD, outcome.flaw)
    if readings is None or outcome.contents is None:
        return None
    differences = [first_difference(reading, outcome.contents) for reading in readings]
    return Finding(How.MISREAD, differences[0]) if all(differences) else None


def _accepted_as(contents: Contents) -> str:
    names = ", ".join(repr(name) for name in list(contents.tensors)[:3])
    return f"accepted with {len(contents.tensors)} tensors ({names})"
