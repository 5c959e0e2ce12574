"""One driver process at the harness's end of the pipe: requests, answers, and every way in which they fail."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from conformance.protocol.failures import (
    DriverDied,
    DriverFailure,
    DriverHung,
    DriverOutgrew,
    DriverStarved,
    EndedBy,
    EngineRefused,
    ProtocolViolated,
)
from conformance.protocol.messages import (
    MAX_LINE_BYTES,
    METHODS,
    Empty,
    ErrorKind,
    Message,
    Request,
    Response,
    RpcError,
)
from conformance.protocol.process import Ended, GuardedProcess
from conformance.protocol.starvation import Patience

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

Result = TypeVar("Result", bound=Message)

METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
KIND_OF_CODE = {
    METHOD_NOT_FOUND: ErrorKind.NOT_SUPPORTED,
    INVALID_PARAMS: ErrorKind.INVALID_ARGUMENT,
}
CLOSING_GRACE_S = 2.0
MEMORY_INTERVAL_S = 0.05
SHORTEST_WAIT_S = 0.02
EXCERPT_BYTES = 120


@dataclass(frozen=True)
class Limits:
    """How much of a driver is borne: bytes of a line and of kept standard error, seconds, resident bytes."""

    line_bytes: int = MAX_LINE_BYTES
    stderr_bytes: int = 64 * 1024
    call_s: float = 60.0
    close_s: float = 5.0
    max_rss: int | None = None


@dataclass(frozen=True)
class Exit:
    """How a closed driver ended: of itself once its input closed or by our kill, how, after how long.

    `unsolicited` is what it had written to its standard output without being asked.
    """

    ended: Ended
    ended_by: EndedBy
    seconds: float
    unsolicited: bytes


class Driver:
    """One driver process; used by one thread. After any `DriverFailure` nothing of it is left."""

    def __init__(self, process: GuardedProcess, limits: Limits) -> None:
        self._process = process
        self._limits = limits
        self._last_id = 0
        self._exit: Exit | None = None

    @classmethod
    def spawn(
        cls,
        command: list[str],
        *,
        cwd: Path,
        env: dict[str, str],
        run_dir: Path,
        limits: Limits | None = None,
    ) -> Self:
        """Start `command` in `cwd`; its temporary files go to `run_dir` unless `env` names another TMPDIR.

        Raises:
            DriverNotStarted: there is no such command or directory, or it may not be run.
        """
        limits = limits or Limits()
        env = {"TMPDIR": str(run_dir), **env}
        return cls(
            GuardedProcess(command, cwd=cwd, env=env, line_bytes=limits.line_bytes, stderr_bytes=limits.stderr_bytes),
            limits,
        )

    @property
    def pid(self) -> int:
        """The process id of the driver itself."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        if not self._process.closed:
            self._process.pump(0)
        return not self._process.closed and not self._process.over

    def stderr_tail(self) -> str:
        """The last of what the driver wrote to its standard error."""
        return self._process.stderr_tail()

    def call(self, method: str, params: Message | None = None, *, timeout: float | None = None) -> Any:
        """Ask a method of the protocol; the answer is of the method's result type.

        Raises:
            EngineRefused: the engine answered with an error.
            DriverFailure: one of its subclasses; the process is gone.
        """
        row = METHODS[method]
        params = Empty() if params is None else params
        if type(params) is not row.params:
            raise TypeError(f"{method} takes {row.params.__name__}, not {type(params).__name__}")
        return self.request(method, params, row.result, timeout=timeout)

    def request(self, method: str, params: Message, result: type[Result], *, timeout: float | None = None) -> Result:
        """Ask any method, known to the protocol or not, and take the answer as a `result`.

        Raises:
            EngineRefused: the engine answered with an error.
            DriverFailure: one of its subclasses; the process is gone.
            ValueError: the request itself is longer than a line may be.
        """
        seconds = self._limits.call_s if timeout is None else timeout
        line = self._encode(method, params)
        try:
            self._expect_silence(method)
            self._process.send(line)
            return self._decode(method, self._await_line(method, seconds), result)
        except EngineRefused:
            raise
        except BaseException:
            self.kill()
            raise

    def close(self) -> Exit:
        """Close its input, give it `close_s` seconds to end by itself, kill what is left."""
        if self._exit is None:
            start = time.monotonic()
            self._process.close_stdin()
            deadline = start + self._limits.close_s
            while not self._process.over and (left := deadline - time.monotonic()) > 0:
                self._process.pump(left)
                if len(self._process.stdout) > self._limits.line_bytes:
                    break
            self._finish("driver" if self._process.over else "harness", start)
        assert self._exit is not None
        return self._exit

    def death(self) -> DriverFailure:
        """How a process that is no longer alive ended, as evidence; collects what is left of it."""
        return self._died("between calls")

    def kill(self) -> None:
        """End the process and all its descendants at once."""
        if self._exit is None:
            self._finish("driver" if self._process.over else "harness", time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            self.close()
        else:
            self.kill()

    def _finish(self, ended_by: EndedBy, start: float) -> None:
        if self._process.over:
            self._process.drain(lambda: self._process.stdout_open)
        seconds = time.monotonic() - start
        unsolicited = bytes(self._process.stdout[: self._limits.line_bytes])
        self._process.kill()
        self._exit = Exit(self._process.ended or Ended(), ended_by, seconds, unsolicited)

    def _encode(self, method: str, params: Message) -> bytes:
        self._last_id += 1
        line = msgspec.json.encode(Request(self._last_id, method, msgspec.Raw(msgspec.json.encode(params))))
        if len(line) >= MAX_LINE_BYTES:
            raise ValueError(f"a request of {len(line)} bytes is longer than a line may be")
        return line + b"\n"

    def _expect_silence(self, method: str) -> None:
        if self._process.closed:
            raise self._died(method)
        self._process.pump(0)
        if self._process.over:
            raise self._died(method)
        if self._process.stdout:
            raise self._violated(method, f"unasked-for output: {_excerpt(self._process.stdout)}")

    def _await_line(self, method: str, seconds: float) -> bytes:
        patience, silent_since = Patience(seconds, self._process.family), None
        while (line := self._take_line(method)) is None:
            if self._process.over:
                if patience.waited >= seconds or not self._process.pump(0):
                    raise self._died(method)
                continue
            if closed := self._process.closed_stream():
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > CLOSING_GRACE_S:
                    raise self._violated(method, f"it closed its standard {closed} and went on running")
            if (left := patience.left()) <= 0:
                raise self._hung(method, seconds)
            if patience.worn_out:
                raise self._starved(method, patience.waited)
            self._pump(method, min(max(left, SHORTEST_WAIT_S), patience.interval, CLOSING_GRACE_S))
        return line

    def _pump(self, method: str, seconds: float) -> None:
        limit = self._limits.max_rss
        if limit is None:
            self._process.pump(seconds)
            return
        self._process.pump(min(seconds, MEMORY_INTERVAL_S))
        rss = self._process.resident()
        if rss > limit:
            raise self._failed(lambda tail: DriverOutgrew(method, rss=rss, limit=limit, stderr_tail=tail))

    def _take_line(self, method: str) -> bytes | None:
        buffer = self._process.stdout
        end = buffer.find(b"\n")
        if max(end, len(buffer) if end < 0 else 0) > self._limits.line_bytes:
            detail = f"a line of more than {self._limits.line_bytes} bytes: {_excerpt(buffer)}"
            raise self._violated(method, detail)
        if end < 0:
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        return line

    def _decode(self, method: str, line: bytes, result: type[Result]) -> Result:
        response = self._parse(method, line, Response, "not a response")
        if response.id != self._last_id:
            said = "" if response.error is None else f": {response.error.message}"
            raise self._violated(method, f"answer to request {response.id}, not {self._last_id}{said}")
        if (response.error is None) == isinstance(response.result, msgspec.UnsetType):
            raise self._violated(method, f"not exactly one of result and error: {_excerpt(line)}")
        if response.error is not None:
            raise _refusal(method, response.error)
        assert isinstance(response.result, msgspec.Raw)
        return self._parse(method, bytes(response.result), result, f"not a {result.__name__}")

    def _parse(self, method: str, text: bytes, kind: type[Result], otherwise: str) -> Result:
        try:
            return msgspec.json.decode(text, type=kind)
        except RecursionError:
            cause = "nested too deep"
        except (msgspec.MsgspecError, ValueError) as error:
            cause = str(error)
        raise self._violated(method, f"{otherwise}: {cause}: {_excerpt(text)}")

    def _died(self, method: str) -> DriverDied:
        self.kill()
        assert self._exit is not None
        ended = self._exit.ended
        return DriverDied(
            method,
            signal=ended.signal,
            exit_status=ended.exit_status,
            ended_by=self._exit.ended_by,
            stderr_tail=self.stderr_tail(),
            max_rss=ended.max_rss,
        )

    def _hung(self, method: str, seconds: float) -> DriverFailure:
        unread = len(self._process.unsent)
        return self._failed(lambda tail: DriverHung(method, seconds=seconds, stderr_tail=tail, unread=unread))

    def _starved(self, method: str, seconds: float) -> DriverFailure:
        return self._failed(lambda tail: DriverStarved(method, seconds=seconds, stderr_tail=tail))

    def _violated(self, method: str, detail: str) -> DriverFailure:
        return self._failed(lambda tail: ProtocolViolated(method, detail=detail, stderr_tail=tail))

    def _failed(self, failure: Callable[[str], DriverFailure]) -> DriverFailure:
        self.kill()
        return failure(self.stderr_tail())


def _refusal(method: str, error: RpcError) -> EngineRefused:
    data = error.data
    return EngineRefused(
        method,
        kind=data.kind if data else KIND_OF_CODE.get(error.code, ErrorKind.INTERNAL),
        type=data.type if data else "",
        message=error.message,
        fields=data.fields if data else {},
        code=error.code,
    )


def _excerpt(text: bytes | bytearray) -> str:
    kept = bytes(text[:EXCERPT_BYTES])
    return repr(kept)[1:] + ("…" if len(text) > EXCERPT_BYTES else "")
