"""Files that are not drawn from a class: against the official library, too big for memory, cut, and cut while open."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from checks.support.parsing import Hunter, prober_of, try_each
from checks.support.tensors import write_safetensors
from conformance.corpus.safetensors.classes import Case, CorpusClass, RandomSource, Source, plain, with_metadata
from conformance.corpus.safetensors.findings import judge, judge_file
from conformance.corpus.safetensors.heavy import HEAVY, HeavyFile
from conformance.corpus.safetensors.hunt import Failure
from conformance.corpus.safetensors.oracle import first_difference, official, without_ranges
from conformance.corpus.safetensors.probe import Outcome, Status
from conformance.corpus.safetensors.rules import Demand, Rule
from conformance.protocol.failures import DriverDied, EngineRefused
from conformance.protocol.messages import FileOpen, FileRead, Handle
from conformance.trial.host_lock import much_memory
from conformance.trial.stand import Stand

_CHEAP_BYTES = 32 * 2**20
_MUCH_BYTES = 2**30
_SHOWN = 5


class AgainstOfficial:
    """Tries files, and compares every reading with the official library's: a second oracle, bit for bit."""

    def __init__(self, stand: Stand) -> None:
        self._prober = prober_of(stand)
        self.compared = 0
        self.differences: list[str] = []

    def try_bytes(self, data: bytes) -> Outcome:
        """Try a file; what the official library accepts too must be read as it reads it."""
        outcome = self._prober.try_bytes(data)
        answer = official(data)
        if outcome.status is Status.ACCEPTED and outcome.contents is not None and answer.contents is not None:
            self.compared += 1
            if found := first_difference(answer.contents, without_ranges(outcome.contents)):
                self.differences.append(found)
        return outcome

    def observe(self, stand: Stand) -> None:
        """Observe `as_official`, and how many files were compared."""
        note = f"{self.compared} files read by both"
        stand.equal("as_official", expected=[], observed=self.differences[:_SHOWN], note=note)
        stand.measured("compared", self.compared, "files")


def observe_heavy(stand: Stand) -> None:
    """Observe `heavy/<name>` for the row's files that are too big for memory: all in a long run, else the cheap."""
    for heavy in HEAVY:
        if heavy.row != stand.row.id or (heavy.disk_bytes > _CHEAP_BYTES and stand.plan.profile != "long"):
            continue
        path = stand.directory / f"{heavy.name}.safetensors"
        try:
            with much_memory() if heavy.file_bytes > _MUCH_BYTES else nullcontext():
                _observe_one(stand, heavy, path)
        finally:
            path.unlink(missing_ok=True)


def _observe_one(stand: Stand, heavy: HeavyFile, path: Path) -> None:
    contents = heavy.write(path)
    outcome = prober_of(stand).try_file(path, only=contents.tensors)
    finding = judge_file(heavy.demand, (contents,), outcome)
    observed = "" if finding is None else f"{finding.how}: {finding.detail}"
    stand.equal(f"heavy/{heavy.name}", expected="", observed=observed, note=heavy.summary)


def _cut_of(source: Source) -> Case:
    """The file ends after any one of its bytes."""
    base = with_metadata(plain(source, least=2, most=2), [("k", "v")])
    return base.broken(base.data[: source.integer(0, len(base.data) - 1)])


EVERY_BYTE = CorpusClass(
    "truncation.every_byte", "F-PARSE-043", Demand.REJECT, Rule.COMPLETE, _cut_of, official_accepts=False
)


def cut_at_every_byte(hunter: Hunter) -> None:
    """Cut one small file after each of its bytes; all cuts count as examples of one class."""
    base = with_metadata(plain(RandomSource(hunter.stand.seed), least=2, most=2), [("k", "v")])

    def outcomes() -> Iterator[Failure | None]:
        control = hunter.try_file(base.data)
        whole = base.odd(base.data, base.contents)
        if finding := judge(Demand.ACCEPT, whole, control):
            yield Failure(finding, whole, control, of_control=True)
            return
        for length in range(len(base.data)):
            case = base.broken(base.data[:length])
            outcome = hunter.try_file(case.data)
            finding = judge(Demand.REJECT, case, outcome)
            yield Failure(finding, case, outcome, of_control=False) if finding else None

    try_each(hunter, EVERY_BYTE, outcomes())


def observe_cut_while_open(stand: Stand, nbytes: int) -> None:
    """Observe `cut_while_open`: a file cut in half behind the engine's back gives an error or its old bytes.

    A process that dies of SIGBUS had mapped the file, as the specification wants: `outlives_cut` is hardening.
    """
    half = nbytes // 2
    payloads = {name: stand.random.randbytes(half) for name in ("head", "tail")}
    path = _two_tensors(stand, payloads)
    died = ""
    try:
        handle: Handle = stand.engine.call("file.open", FileOpen(str(path)))
        os.truncate(path, path.stat().st_size - half - half // 2)
        observed = _wrong_readings(stand, handle, payloads)
        stand.equal("cut_while_open", expected=[], observed=observed, note=f"{nbytes} bytes, a quarter of them left")
        stand.engine.call("file.close", Handle(handle.handle))
    except DriverDied as death:
        died = str(death)
        if death.signal != signal.SIGBUS:
            stand.failed("cut_while_open", "crash", died)
            return
        stand.equal("cut_while_open", expected=[], observed=[], note=died)
    stand.equal("outlives_cut", expected="", observed=died, hardening=True)


def _two_tensors(stand: Stand, payloads: dict[str, bytes]) -> Path:
    tensors = {name: ("F32", [len(payload) // 4], payload) for name, payload in payloads.items()}
    return write_safetensors(stand.directory / "cut.safetensors", tensors)


def _wrong_readings(stand: Stand, handle: Handle, payloads: dict[str, bytes]) -> list[str]:
    """Names of tensors that were answered with other bytes than the file had; an error is a right answer."""
    wrong = []
    for name, payload in payloads.items():
        try:
            data = stand.engine.call("file.read", FileRead(handle.handle, name))
        except EngineRefused:
            continue
        if stand.read_bytes(data) != payload:
            wrong.append(name)
    return wrong
