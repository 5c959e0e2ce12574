"""How an engine treats one file: opened, inspected and read through the protocol, and what became of it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from conformance.corpus.safetensors.builder import NOT_TOLD, PREFIX_BYTES, Contents, TensorContents
from conformance.corpus.safetensors.classes import sha256
from conformance.corpus.safetensors.peak_memory import PeakMemory
from conformance.protocol.failures import (
    DriverDied,
    DriverFailure,
    DriverHung,
    DriverOutgrew,
    DriverStarved,
    EngineRefused,
)
from conformance.protocol.messages import (
    ErrorKind,
    FileContents,
    FileOpen,
    FileRead,
    Handle,
    Message,
    Ping,
    TensorData,
    TensorEntry,
)
from conformance.protocol.starvation import Starvation
from conformance.protocol.tensors import BrokenTensor, read_tensor

CLEAR_KINDS = frozenset({ErrorKind.INVALID_FILE, ErrorKind.UNSUPPORTED_DTYPE})
MIB = 2**20
_PANICS = ("panicked at", "Traceback (most recent call last)", "goroutine ", "terminate called", "core dumped")
# Words that say that something is wrong, and not what.
_EMPTY_WORDS = re.compile(
    r"\b(?:"
    r"a|an|and|bad|be|broken|but|can|cannot|could|corrupt|corrupted|couldn|did|error|exception|"
    r"fail|failed|failure|file|files|find|for|format|from|in|input|internal|invalid|is|it|load|"
    r"loaded|loading|malformed|model|not|of|on|open|opening|or|parse|parsing|read|reading|"
    r"safetensor|safetensors|so|something|that|the|this|to|unable|unexpected|unknown|was|went|"
    r"while|wrong"
    r")\b"
)


class Asked(Protocol):
    """What a probe needs of an engine's session; a failed process is replaced at the next call."""

    @property
    def pid(self) -> int:
        """Process id of the driver."""
        ...

    def call(self, method: str, params: Message | None = None, *, timeout: float | None = None) -> Any:
        """Ask a method of the protocol."""
        ...


class Status(StrEnum):
    """What became of a file."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CRASHED = "crashed"
    HUNG = "hung"
    OUTGREW = "outgrew"
    VIOLATED = "violated"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a rejection may cost: seconds and bytes, each with a share for the header's length.

    `hang_factor` times the seconds (and `hang_floor_s` at the least) is how long an answer is awaited at all, and
    `hang_per_file_byte` more: nothing forbids to read a whole file, and memory that was never touched before costs a
    virtual machine seconds a GiB.
    """

    seconds: float = 1.0
    seconds_per_header_byte: float = 1.0 / 10_000_000
    growth: int = 64 * MIB
    growth_per_header_byte: int = 16
    hang_factor: float = 10.0
    hang_floor_s: float = 10.0
    hang_per_file_byte: float = 1.0 / (16 * MIB)
    repeats: int = 3

    def time_limit(self, header: int) -> float:
        """Seconds that a rejection may take."""
        return self.seconds + header * self.seconds_per_header_byte

    def growth_limit(self, header: int) -> int:
        """Bytes that resident memory may grow during a rejection."""
        return self.growth + header * self.growth_per_header_byte

    def timeout(self, header: int, file: int) -> float:
        """Seconds after which an engine that does not answer hangs."""
        return max(self.hang_floor_s, self.hang_factor * self.time_limit(header)) + file * self.hang_per_file_byte


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an engine did with a file.

    `stage` is the call that decided. `contents` are what an accepted file was read as. `unclear` says why a
    refusal is not clear, empty if it is; `excess` says which allowance it overstepped. `flaw` is an answer that
    contradicts itself: bytes against their own length, hash or entry.
    """

    status: Status
    stage: str
    seconds: float
    growth: int = 0
    contents: Contents | None = None
    kind: str = ""
    message: str = ""
    unclear: str = ""
    excess: str = ""
    flaw: str = ""

    @property
    def ended_process(self) -> bool:
        """Whether the engine's process has to be replaced after this."""
        return self.status not in (Status.ACCEPTED, Status.REJECTED)


@dataclass(frozen=True, slots=True)
class _Size:
    """Bytes of a file, and of the header that it really holds."""

    header: int
    file: int


class Prober:
    """Tries files on one engine, whose tensors come into `run_dir`.

    Files are named by what they hold, inside `cases` (or `run_dir/cases`): two probers that work at the same time
    need a directory each, or one removes the file that the other has just written.
    """

    def __init__(
        self, engine: Asked, run_dir: Path, allowance: Allowance | None = None, *, cases: Path | None = None
    ) -> None:
        self._engine = engine
        self._directory = cases or run_dir / "cases"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._run_dir = run_dir.resolve()
        self._allowance = allowance or Allowance()
        self._memory: PeakMemory | None = None

    def try_bytes(self, data: bytes) -> Outcome:
        """Write the bytes to a file named by their hash, try it, and remove it."""
        path = self._directory / f"{sha256(data)[:20]}.safetensors"
        path.write_bytes(data)
        try:
            return self._best_of(path, _Size(_header_inside(data[:PREFIX_BYTES], len(data)), len(data)), None)
        finally:
            path.unlink()

    def try_file(self, path: Path, only: Collection[str] | None = None) -> Outcome:
        """Open, inspect and read a file; `only` names the tensors to read (all when None).

        A rejection that took too long or too much memory is repeated, and the best of `repeats` counts: a busy
        neighbour is not the engine's fault, and neither is time for which others kept it from a processor.

        Raises:
            DriverStarved: they did so nearly always.
        """
        with path.open("rb") as stream:
            prefix = stream.read(PREFIX_BYTES)
            size = os.fstat(stream.fileno()).st_size
        return self._best_of(path, _Size(_header_inside(prefix, size), size), only)

    def _best_of(self, path: Path, size: _Size, only: Collection[str] | None) -> Outcome:
        outcome = self._attempt(path, size, only)
        for _ in range(self._allowance.repeats - 1):
            if not outcome.excess:
                break
            again = self._attempt(path, size, only, Starvation(lambda: [self._engine.pid]))
            if again.ended_process or not again.excess or again.seconds < outcome.seconds:
                outcome = again
        return outcome

    def _attempt(
        self, path: Path, size: _Size, only: Collection[str] | None, starvation: Starvation | None = None
    ) -> Outcome:
        memory = self._watch()
        memory.begin()
        started = time.monotonic()
        try:
            outcome = self._ask(path, size, only, started)
        except DriverStarved:
            raise
        except DriverFailure as failure:
            return _ended(failure, time.monotonic() - started)
        if outcome.status is not Status.REJECTED:
            return outcome
        starved = 0.0 if starvation is None else starvation.look()
        outcome = replace(outcome, growth=memory.growth(), seconds=max(0.0, outcome.seconds - starved))
        return replace(outcome, excess=self._excess(outcome, size.header))

    def _watch(self) -> PeakMemory:
        pid = self._engine.pid
        if self._memory is None or self._memory.pid != pid:
            if self._memory is not None:
                self._memory.close()
            self._memory = PeakMemory(pid)
        return self._memory

    def _excess(self, outcome: Outcome, header: int) -> str:
        limit = self._allowance.time_limit(header)
        if outcome.seconds > limit:
            return f"refused after {outcome.seconds:.2f} s, allowed are {limit:.2f} s"
        room = self._allowance.growth_limit(header)
        if outcome.growth > room:
            return f"grew by {outcome.growth / MIB:.0f} MiB to refuse, allowed are {room / MIB:.0f} MiB"
        return ""

    def _ask(self, path: Path, size: _Size, only: Collection[str] | None, started: float) -> Outcome:
        timeout = self._allowance.timeout(size.header, size.file)
        stage = "file.open"
        handle: Handle | None = None
        try:
            handle = self._engine.call(stage, FileOpen(str(path)), timeout=timeout)
            assert isinstance(handle, Handle)
            stage = "file.inspect"
            told = self._engine.call(stage, handle, timeout=timeout)
            assert isinstance(told, FileContents)
            stage = "file.read"
            contents, flaw = self._read(handle, told, only, timeout)
        except EngineRefused as refusal:
            outcome = self._rejected(refusal, path, stage, time.monotonic() - started)
        else:
            seconds = time.monotonic() - started
            outcome = Outcome(Status.ACCEPTED, stage, seconds, contents=contents, flaw=flaw)
        if handle is not None:
            self._close(handle, timeout)
        return outcome

    def _rejected(self, refusal: EngineRefused, path: Path, stage: str, seconds: float) -> Outcome:
        """A refusal; the ping shows that the process still serves, so that its death is laid at this file's door."""
        self._engine.call("ping", Ping(), timeout=self._allowance.hang_floor_s)
        return Outcome(
            Status.REJECTED,
            stage,
            seconds,
            kind=str(refusal.kind),
            message=refusal.message,
            unclear=unclear(refusal, path),
        )

    def _close(self, handle: Handle, timeout: float) -> None:
        try:
            self._engine.call("file.close", handle, timeout=timeout)
        except EngineRefused:
            return

    def _read(
        self, handle: Handle, told: FileContents, only: Collection[str] | None, timeout: float
    ) -> tuple[Contents, str]:
        tensors: dict[str, TensorContents] = {}
        flaw = ""
        for entry in told.tensors:
            if entry.name in tensors:
                flaw = flaw or f"tensor {entry.name!r} is listed twice"
            if only is not None and entry.name not in only:
                continue
            data = self._engine.call("file.read", FileRead(handle.handle, entry.name), timeout=timeout)
            assert isinstance(data, TensorData)
            payload, found = self._payload(data, entry)
            flaw = flaw or found
            begin = NOT_TOLD if entry.begin is None else entry.begin
            tensors[entry.name] = TensorContents(entry.dtype, tuple(entry.shape), begin, payload)
        return Contents(tensors, told.metadata), flaw

    def _payload(self, data: TensorData, entry: TensorEntry) -> tuple[bytes, str]:
        """A tensor's bytes as handed over, and how they contradict what was said of them; the file is taken away."""
        name = repr(entry.name)
        try:
            payload = bytes(read_tensor(self._run_dir, data))
            (self._run_dir / data.path).unlink(missing_ok=True)
        except BrokenTensor as broken:
            return b"", f"tensor {name}: {broken}"
        if (data.dtype, data.shape) != (entry.dtype, entry.shape):
            told = f"inspected as {entry.dtype} {entry.shape}, read as {data.dtype} {data.shape}"
            return payload, f"tensor {name} is {told}"
        if entry.begin is not None and entry.end is not None and entry.end - entry.begin != len(payload):
            return payload, f"tensor {name} is told to span {entry.end - entry.begin} bytes and has {len(payload)}"
        return payload, ""


def _ended(failure: DriverFailure, seconds: float) -> Outcome:
    """The outcome of a call that the process did not survive."""
    status = Status.VIOLATED
    if isinstance(failure, DriverHung):
        status = Status.HUNG
    elif isinstance(failure, DriverOutgrew):
        status = Status.OUTGREW
    elif isinstance(failure, DriverDied):
        status = Status.CRASHED
    return Outcome(status, failure.method, seconds, message=str(failure))


def _header_inside(prefix: bytes, size: int) -> int:
    """How many bytes of header a file really holds, whatever it announces."""
    return max(0, min(int.from_bytes(prefix, "little"), size - PREFIX_BYTES))


def unclear(refusal: EngineRefused, path: Path) -> str:
    """Why a refusal is not clear; empty if it is: of a fitting kind, naming the file, and saying a cause."""
    told = f"{refusal.message} {' '.join(_strings(refusal.fields))}"
    rest = refusal.message.replace(str(path), " ").replace(path.name, " ").lower()
    cause = re.search(r"[^\W\d_]{2,}", _EMPTY_WORDS.sub(" ", rest))
    complaints = (
        (refusal.kind not in CLEAR_KINDS, f"the kind is {refusal.kind}, not invalid_file"),
        (any(text in refusal.message for text in _PANICS), "the message is a panic's or a traceback's"),
        (path.name not in told, "the message does not name the file"),
        (cause is None, "the message says no cause"),
    )
    return next((complaint for holds, complaint in complaints if holds), "")


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []
