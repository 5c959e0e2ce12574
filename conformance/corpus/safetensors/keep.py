"""Counter-examples on disk: the file itself, the valid file beside it, and a JSON sidecar that says all about it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from conformance.corpus.safetensors.builder import Contents
from conformance.corpus.safetensors.classes import CorpusClass, changed_ranges, sha256
from conformance.corpus.safetensors.findings import How
from conformance.corpus.safetensors.hunt import Failure
from conformance.corpus.safetensors.probe import Outcome, Status
from conformance.corpus.safetensors.rules import Demand
from conformance.observations import CaseFailure

_DETAIL = 500


class TensorSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tensor without its bytes; `begin` and `end` are relative to the byte buffer."""

    name: str
    dtype: str
    shape: list[int]
    begin: int
    end: int
    sha256: str


class ContentsSummary(msgspec.Struct, frozen=True):
    """What a file says, small enough for a sidecar."""

    tensors: list[TensorSummary]
    metadata: dict[str, str]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The sidecar of a counter-example.

    `of_control` says that the valid file was got wrong; then `changed` is empty. `changed` are byte ranges
    [begin, end) of the file that differ from its control. `readings` are the contents that would have been right,
    empty where the file must be refused.
    """

    case_class: str
    row: str
    summary: str
    demand: Demand
    rule: str
    how: How
    late: bool
    detail: str
    file: str
    sha256: str
    control: str
    of_control: bool
    changed: list[tuple[int, int]]
    readings: list[ContentsSummary]
    observed: str
    seed: int
    command: str


def summarise(contents: Contents) -> ContentsSummary:
    """Contents with hashes in place of bytes."""
    return ContentsSummary(
        [
            TensorSummary(name, t.dtype, list(t.shape), t.begin, t.end, sha256(t.payload))
            for name, t in contents.tensors.items()
        ],
        dict(contents.metadata),
    )


def keep(directory: Path, corpus_class: CorpusClass, failure: Failure, *, seed: int, command: str) -> CaseFailure:
    """Write a counter-example, its control and its sidecar into `directory`; what the record says of it."""
    directory.mkdir(parents=True, exist_ok=True)
    case, data = failure.case, failure.data
    readings = (case.control_contents,) if failure.of_control else case.readings or ()
    name = sha256(data)
    control = f"{sha256(case.control)}.safetensors"
    kept = Kept(
        case_class=corpus_class.name,
        row=corpus_class.row,
        summary=corpus_class.summary,
        demand=Demand.ACCEPT if failure.of_control else corpus_class.demand,
        rule=str(corpus_class.rule),
        how=failure.finding.how,
        late=failure.finding.late,
        detail=failure.finding.detail[:_DETAIL],
        file=f"{name}.safetensors",
        sha256=name,
        control=control,
        of_control=failure.of_control,
        changed=[] if failure.of_control else list(changed_ranges(case.control, data)),
        readings=[summarise(reading) for reading in readings],
        observed=_observed(failure.outcome),
        seed=seed,
        command=command,
    )
    (directory / control).write_bytes(case.control)
    (directory / kept.file).write_bytes(data)
    sidecar = msgspec.json.format(msgspec.json.encode(kept), indent=1)
    (directory / f"{name}.json").write_bytes(sidecar)
    return CaseFailure(
        case_class=kept.case_class, how=str(kept.how), detail=kept.detail, file=kept.file, sha256=kept.sha256
    )


class NotAKeptCase(Exception):
    """A file beside which no sidecar of ours lies, or one that does not speak of it."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path = path
        self.cause = cause
        super().__init__(f"{path} is not a kept counter-example: {cause}")


def load(path: Path) -> tuple[Kept, bytes, bytes]:
    """A kept counter-example again: its sidecar, its bytes and its control's.

    Args:
        path: The `.safetensors` file or its sidecar.

    Raises:
        NotAKeptCase: There is no sidecar, or the file is not the one it speaks of.
    """
    sidecar = path.with_suffix(".json")
    try:
        kept = msgspec.json.decode(sidecar.read_bytes(), type=Kept)
        data = path.with_suffix(".safetensors").read_bytes()
        if not re.fullmatch(r"[0-9a-f]{64}\.safetensors", kept.control):
            raise NotAKeptCase(path, f"the control is called {kept.control!r}")
        control = (path.parent / kept.control).read_bytes()
    except (OSError, msgspec.MsgspecError) as error:
        raise NotAKeptCase(path, str(error)) from error
    if sha256(data) != kept.sha256:
        raise NotAKeptCase(path, "its sha256 is another")
    return kept, data, control


def _observed(outcome: Outcome) -> str:
    if outcome.status is Status.ACCEPTED and outcome.contents is not None:
        tensors = ", ".join(f"{n!r} {t.dtype} {list(t.shape)}" for n, t in outcome.contents.tensors.items())
        return f"accepted: {tensors or 'no tensors'}"[:_DETAIL]
    return f"{outcome.status} in {outcome.stage}: {outcome.kind} {outcome.message}"[:_DETAIL]
