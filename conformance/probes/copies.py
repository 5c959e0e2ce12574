"""Our own witness of copies: a CUPTI library inside the engine's process, and what its lines say.

`copies.c` is built where the CUDA toolkit is, and loaded by the CUDA driver itself (`CUDA_INJECTION64_PATH`), so
any engine in any language is seen, and none is asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from enum import IntEnum
from pathlib import Path

import msgspec

SOURCE = Path(__file__).with_name("copies.c")
LIBRARY_VARIABLE, OUTPUT_VARIABLE = "CUDA_INJECTION64_PATH", "FALSIFY_COPIES"
READ_BYTES = 64 * 1024 * 1024
_BUILD_S = 120
_INCLUDES = ("include", "extras/CUPTI/include")
_LIBRARIES = ("lib64", "lib", "extras/CUPTI/lib64")


class WitnessUnavailable(Exception):
    """The library cannot be built here, or did not work in the process; copies were not seen."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(f"no witness of copies: {cause}")


class CopyKind(IntEnum):
    """CUPTI's kinds of copies that concern us."""

    HOST_TO_DEVICE = 1
    DEVICE_TO_HOST = 2


class MemoryKind(IntEnum):
    """CUPTI's kinds of memory that concern us."""

    PAGEABLE = 1
    PINNED = 2
    DEVICE = 3


class Copy(msgspec.Struct, frozen=True):
    """One copy as the device carried it out; times in nanoseconds of CLOCK_MONOTONIC."""

    correlation: int
    kind: int
    source: int
    target: int
    asynchronous: bool
    nbytes: int
    start: int
    end: int
    stream: int


class Call(msgspec.Struct, frozen=True):
    """One call of the runtime or the driver that copies or synchronises."""

    correlation: int
    start: int
    end: int
    thread: int
    name: str

    @property
    def waits(self) -> bool:
        """True for a call that blocks the host until the device is done."""
        return "ynchronize" in self.name


class Trace(msgspec.Struct, frozen=True):
    """Everything the witness saw; `complete` is False where records were lost or the file was full."""

    copies: tuple[Copy, ...]
    calls: tuple[Call, ...]
    complete: bool

    def between(self, begin: int, end: int) -> Trace:
        """What began in this span of CLOCK_MONOTONIC nanoseconds."""
        copies = tuple(copy for copy in self.copies if begin <= copy.start < end)
        return Trace(copies, tuple(call for call in self.calls if begin <= call.start < end), self.complete)

    def to_device(self) -> Trace:
        """The same without copies in other directions."""
        return Trace(
            tuple(copy for copy in self.copies if copy.kind == CopyKind.HOST_TO_DEVICE), self.calls, self.complete
        )


def build(directory: Path, roots: Iterable[Path] | None = None) -> Path:
    """Compile the library into `directory`.

    Raises:
        WitnessUnavailable: there is no nvcc, no CUPTI, or the compiler refuses.
    """
    compiler = shutil.which("nvcc")
    if compiler is None:
        raise WitnessUnavailable("nvcc is not on PATH")
    include, library = _find_cupti(tuple(toolkit_roots(Path(compiler)) if roots is None else roots))
    target = directory / "copies.so"
    command = [compiler, "-shared", "-cudart", "none", "-Xcompiler", "-fPIC,-O2", f"-I{include}", str(SOURCE)]
    command += [str(library), "-Xlinker", f"-rpath,{library.parent}", "-o", str(target)]
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WitnessUnavailable(f"nvcc did not run: {error}") from error
    if made.returncode:
        raise WitnessUnavailable(f"nvcc refused copies.c: {made.stderr.strip()[:300]}")
    return target


def toolkit_roots(compiler: Path) -> Iterator[Path]:
    """Where a CUDA toolkit may lie, the compiler's own first, and the packages that carry CUPTI."""
    yield compiler.resolve().parent.parent
    yield from (Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name))
    yield from sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    yield from (*sorted(packages.glob("cu[0-9]*"), reverse=True), packages / "cuda_cupti")


def _find_cupti(roots: Iterable[Path]) -> tuple[Path, Path]:
    """The directory of `cupti.h` and the library beside it, of the same toolkit."""
    for root in roots:
        headers = [root / place for place in _INCLUDES if (root / place / "cupti.h").is_file()]
        found = [file for place in _LIBRARIES for file in sorted((root / place).glob("libcupti.so*"))]
        if headers and found:
            return headers[0], found[0]
    raise WitnessUnavailable("cupti.h and libcupti.so are in no CUDA toolkit here")


def read_trace(path: Path) -> Trace:
    """What the library wrote into `path`.

    Raises:
        WitnessUnavailable: it never started, or CUPTI refused it.
    """
    try:
        with path.open("rb") as file:
            lines = file.read(READ_BYTES).decode("ascii", "replace").splitlines()
    except FileNotFoundError:
        raise WitnessUnavailable("the process never loaded it: it did not initialise CUDA") from None
    if "failed" in lines:
        raise WitnessUnavailable("CUPTI refused its records in the engine's process")
    return parse_trace(lines)


def parse_trace(lines: Iterable[str]) -> Trace:
    """Copies and calls in the order in which the host began them; lines that are none make it incomplete."""
    copies: list[Copy] = []
    calls: list[Call] = []
    complete = True
    for line in lines:
        word, *fields = line.split()
        try:
            if word == "copy":
                copies.append(_copy(fields))
            elif word == "call":
                correlation, start, end, thread = map(int, fields[:4])
                calls.append(Call(correlation, start, end, thread, fields[4]))
            else:
                complete = complete and word == "ready"
        except (ValueError, IndexError):
            complete = False
    began = {call.correlation: call.start for call in calls}
    copies.sort(key=lambda copy: began.get(copy.correlation, copy.start))
    return Trace(tuple(copies), tuple(sorted(calls, key=lambda call: call.start)), complete)


def _copy(fields: list[str]) -> Copy:
    correlation, kind, source, target, asynchronous, nbytes, start, end, stream = map(int, fields)
    return Copy(correlation, kind, source, target, bool(asynchronous), nbytes, start, end, stream)


def asynchronous_share(trace: Trace) -> float:
    """Share of the copied bytes that an asynchronous call moved: CUPTI's flag, and every name that it was called by."""
    names: dict[int, list[str]] = {}
    for call in trace.calls:
        if not call.waits:
            names.setdefault(call.correlation, []).append(call.name)

    def queued(copy: Copy) -> bool:
        return copy.asynchronous and all("Async" in name for name in names.get(copy.correlation, ()))

    return _share(trace, [copy for copy in trace.copies if queued(copy)])


def pinned_share(trace: Trace) -> float:
    """Share of the copied bytes that came from page-locked memory."""
    return _share(trace, [copy for copy in trace.copies if copy.source == MemoryKind.PINNED])


def awaited_share(trace: Trace) -> float:
    """Share of the copied bytes for which the host waited before it queued the next copy; the last one apart.

    A wait counts where it began while the copy was under way and ended after it. Waiting for an earlier copy, to
    use its staging buffer again, is none.
    """
    began = {call.correlation: call for call in trace.calls if not call.waits}
    waits = [call for call in trace.calls if call.waits]
    waited = []
    for copy, following in zip(trace.copies, trace.copies[1:], strict=False):
        queued, next_call = began.get(copy.correlation), began.get(following.correlation)
        first = queued.end if queued is not None else copy.start
        last = next_call.start if next_call is not None else following.start
        if any(first <= wait.start < copy.end <= wait.end <= last for wait in waits):
            waited.append(copy)
    return _share(Trace(trace.copies[:-1], (), complete=True), waited)


def _share(trace: Trace, some: Iterable[Copy]) -> float:
    whole = sum(copy.nbytes for copy in trace.copies)
    return sum(copy.nbytes for copy in some) / whole if whole else 0.0
