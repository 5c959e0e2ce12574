"""A kept counter-example put to an engine again: fixed, or failed still."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from conformance.corpus.safetensors.builder import NOT_TOLD, Contents
from conformance.corpus.safetensors.classes import sha256
from conformance.corpus.safetensors.findings import Finding, How, judge_file
from conformance.corpus.safetensors.keep import ContentsSummary, Kept, NotAKeptCase, load
from conformance.corpus.safetensors.oracle import official, without_ranges
from conformance.corpus.safetensors.probe import Outcome, Prober, Status
from conformance.corpus.safetensors.rules import Demand
from conformance.manifest import LoadedManifest
from conformance.protocol.client import Engine
from conformance.protocol.failures import CapabilityNotOffered, DriverFailure
from conformance.trial.launching import launch_in

_SIDECAR = re.compile(r"[0-9a-f]{64}\.json")


class Answer(StrEnum):
    """What a replay says; `ERROR` where nothing could be replayed, which says nothing about the engine."""

    FIXED = "FIXED"
    FAILED = "FAILED"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Replayed:
    """One counter-example replayed."""

    path: Path
    answer: Answer
    detail: str


def kept_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The counter-examples among these paths: files as they are, and what was kept anywhere under a directory."""
    for path in paths:
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*.json") if _SIDECAR.fullmatch(found.name))
        else:
            yield path


def replay_all(paths: Iterable[Path], manifest: LoadedManifest) -> list[Replayed]:
    """Replay counter-examples on a process of an engine; a process that dies of one is replaced for the next.

    Raises:
        BrokenManifest: The manifest has no driver.
    """
    with tempfile.TemporaryDirectory(prefix="falsify-replay-") as directory:
        exchange = Path(directory)
        with Engine(launch_in(manifest, exchange)) as engine:
            prober = Prober(engine, exchange)
            return [replay(path, prober) for path in kept_files(paths)]


def replay(path: Path, prober: Prober) -> Replayed:
    """Try a kept counter-example again, after the valid file beside it."""
    try:
        kept, data, control = load(path)
        finding = _finding(kept, data, control, prober)
    except (NotAKeptCase, CapabilityNotOffered, DriverFailure) as error:
        return Replayed(path, Answer.ERROR, str(error))
    if finding is None:
        return Replayed(path, Answer.FIXED, f"{kept.case_class}: {kept.how} no more")
    return Replayed(path, Answer.FAILED, f"{kept.case_class}: {finding.how}: {finding.detail}")


def _finding(kept: Kept, data: bytes, control: bytes, prober: Prober) -> Finding | None:
    right = official(control).contents
    if right is None:
        raise NotAKeptCase(Path(kept.control), "the valid file beside it is not valid")
    outcome = prober.try_bytes(control)
    if outcome.contents is not None:
        outcome = replace(outcome, contents=without_ranges(outcome.contents))
    if found := judge_file(Demand.ACCEPT, (right,), outcome):
        return Finding(found.how, f"the valid file beside it: {found.detail}", found.late)
    if kept.of_control:
        return None
    return _judged(kept, prober.try_bytes(data))


def _judged(kept: Kept, outcome: Outcome) -> Finding | None:
    """What is wrong now; readings are known by hashes only, so a reading is compared here."""
    if outcome.status is Status.REJECTED and kept.demand is Demand.ACCEPT:
        return Finding(How.WRONG_REJECT, f"{outcome.stage} refused it as {outcome.kind}: {outcome.message}")
    finding = judge_file(kept.demand, None, outcome)
    if finding is not None or outcome.contents is None or not kept.readings:
        return finding
    if any(_is(reading, outcome.contents) for reading in kept.readings):
        return None
    return Finding(How.MISREAD, "read as none of the contents that would be right")


def _is(reading: ContentsSummary, seen: Contents) -> bool:
    tensors = {tensor.name: tensor for tensor in reading.tensors}
    if tensors.keys() != seen.tensors.keys() or dict(seen.metadata) != reading.metadata:
        return False
    return all(
        (found.dtype, list(found.shape), sha256(found.payload))
        == (tensors[name].dtype, tensors[name].shape, tensors[name].sha256)
        and found.begin in (NOT_TOLD, tensors[name].begin)
        for name, found in seen.tensors.items()
    )
