"""One command under a guard: its three pipes without blocking, its pid, and how it ended."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from conformance.protocol import guard
from conformance.protocol.failures import DriverNotStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK_BYTES = 256 * 1024
DRAIN_ROUNDS = 64
GUARD_START_S = 30.0
GUARD_END_S = 10.0
SWEEP_INTERVAL_S = 0.01
MARK = "FALSIFY_DRIVER"


@dataclass(frozen=True)
class Ended:
    """How a process ended: by a signal or with a status (neither is known if its guard was lost); peak bytes."""

    signal: int | None = None
    exit_status: int | None = None
    max_rss: int = 0

    @classmethod
    def from_wait(cls, status: int, max_rss_kib: int) -> Ended:
        """From a raw wait status and `ru_maxrss`."""
        if os.WIFSIGNALED(status):
            return cls(signal=os.WTERMSIG(status), max_rss=max_rss_kib * 1024)
        return cls(exit_status=os.WEXITSTATUS(status), max_rss=max_rss_kib * 1024)


class Tail:
    """The last `limit` bytes of a stream."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()

    def add(self, piece: bytes) -> None:
        """Append, and forget what is now too old."""
        self._kept += piece
        if len(self._kept) > self._limit:
            del self._kept[: -self._limit]

    def text(self) -> str:
        """What is kept, undecodable bytes replaced."""
        return self._kept.decode("utf-8", "replace")


class GuardedProcess:
    """A running command; nothing here blocks longer than it is told to.

    Attributes:
        pid: The command's own process id, as NVML would show it.
        stdout: What was read and not yet consumed.
        unsent: What the command has not yet taken from us.
        ended: How it ended, or None while it lives.
        closed: True when everything is over: no process, no guard, no descriptor.
    """

    def __init__(
        self, command: list[str], *, cwd: Path, env: dict[str, str], line_bytes: int, stderr_bytes: int
    ) -> None:
        """Start `command` in `cwd` with exactly the environment `env`.

        Raises:
            DriverNotStarted: there is no such command or directory, or it may not be run.
        """
        self.command = command
        self.stdout = bytearray()
        self.unsent = bytearray()
        self.ended: Ended | None = None
        self.pid = 0
        self.closed = False
        self._line_bytes = line_bytes
        self._stderr = Tail(stderr_bytes)
        self._process: psutil.Process | None = None
        self._mark = uuid.uuid4().hex
        self._failed = ""
        self._answers = b""
        self._poller = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        order = self._encode_order(cwd, env)
        self._guard, self._control, self._stdin, self._stdout, self._errors = _start_guard()
        for descriptor, handler in (
            (self._control.fileno(), self._read_control),
            (self._stdout, self._read_stdout),
            (self._errors, self._read_stderr),
        ):
            self._listen(descriptor, handler)
        os.set_blocking(self._stdin, False)
        try:
            self._give(order)
        except BaseException:
            self.kill()
            raise

    @property
    def stdout_open(self) -> bool:
        """False once the command closed its standard output, or we did."""
        return self._stdout in self._handlers

    def closed_stream(self) -> str:
        """Which of `output` and `input` the command has closed on us; empty while it can still answer."""
        if not self.stdout_open:
            return "output"
        return "input" if self._stdin < 0 else ""

    @property
    def over(self) -> bool:
        """True when the command has ended, or its guard has and nothing more can be known."""
        return self.ended is not None or self._control.fileno() not in self._handlers

    def stderr_tail(self) -> str:
        """The last of the command's standard error."""
        return self._stderr.text()

    def send(self, data: bytes) -> None:
        """Queue `data` for standard input and write what fits now; `pump` writes the rest."""
        self.unsent += data
        self._write_stdin()

    def close_stdin(self) -> None:
        """Tell the command that no more requests come; what was not sent is dropped."""
        if self._stdin >= 0:
            self._forget(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
            self.unsent.clear()

    def pump(self, seconds: float) -> int:
        """Move bytes between the pipes and the buffers for at most `seconds`; how many pipes were ready."""
        ready = self._poller.poll(max(0.0, seconds) * 1000)
        for descriptor, _ in ready:
            if handler := self._handlers.get(descriptor):
                handler()
        return len(ready)

    def drain(self, wanted: Callable[[], bool]) -> None:
        """Read what lies in the pipes while `wanted()` holds; bounded, whatever the command writes."""
        for _ in range(DRAIN_ROUNDS):
            if not wanted() or not self.pump(0):
                return

    def family(self) -> list[int]:
        """Process ids of the command and of all its descendants that live."""
        return [self.pid, *guard.descendants(self.pid)]

    def resident(self) -> int:
        """Resident bytes of the command and all its descendants, shared pages counted in each."""
        total = 0
        for pid in self.family():
            with suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss
        return total

    def kill(self) -> None:
        """End the command and every descendant, and collect the last of its standard error."""
        if self.closed:
            return
        self.closed = True
        self.close_stdin()
        self._drop_stdout()
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        self._guard.send_signal(signal.SIGCONT)  # a hostile driver may have stopped it
        self._await_guard()
        self.drain(lambda: self._errors in self._handlers)
        for descriptor in list(self._handlers):
            self._forget(descriptor)
        self._control.close()
        os.close(self._errors)

    def _encode_order(self, cwd: Path, env: dict[str, str]) -> bytes:
        if not self.command:
            raise DriverNotStarted([], cause="the command is empty", stderr_tail="")
        try:
            return guard.encode_order(self.command, str(cwd), {**env, MARK: self._mark})
        except ValueError as error:
            raise DriverNotStarted(self.command, cause=str(error), stderr_tail="") from error

    def _give(self, order: bytes) -> None:
        try:
            self._control.settimeout(GUARD_START_S)
            self._control.sendall(order)
            self._control.setblocking(False)
            deadline = time.monotonic() + GUARD_START_S
            while not self.pid and not self._failed and not self.over and time.monotonic() < deadline:
                self.pump(deadline - time.monotonic())
        except OSError as error:
            raise DriverNotStarted(self.command, cause=f"guard: {error}", stderr_tail="") from error
        if not self.pid:
            cause = self._failed or "its guard did not start"
            raise DriverNotStarted(self.command, cause=cause, stderr_tail=self.stderr_tail())

    def _await_guard(self) -> None:
        deadline = time.monotonic() + GUARD_END_S
        while not self._guard_lost() and time.monotonic() < deadline:
            self.pump(deadline - time.monotonic())
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(max(0.1, deadline - time.monotonic()))
        if self._guard.returncode != 0:
            self._guard.kill()
            self._guard.wait()
            self._sweep()

    def _guard_lost(self) -> bool:
        return self._control.fileno() not in self._handlers

    def _sweep(self) -> None:
        # The driver killed its guard: what it started is found by the mark in the environment.
        victims = set() if self._process is None else {self._process}
        deadline = time.monotonic() + GUARD_END_S
        while time.monotonic() < deadline:
            victims = {process for process in victims | set(_marked(self._mark)) if _lives(process)}
            if not victims:
                return
            for process in victims:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(SWEEP_INTERVAL_S)

    def _listen(self, descriptor: int, handler: Callable[[], None], events: int = select.POLLIN) -> None:
        os.set_blocking(descriptor, False)
        self._handlers[descriptor] = handler
        self._poller.register(descriptor, events)

    def _forget(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None):
            self._poller.unregister(descriptor)

    def _drop_stdout(self) -> None:
        if self._stdout >= 0:
            self._forget(self._stdout)
            os.close(self._stdout)
            self._stdout = -1

    def _write_stdin(self) -> None:
        if self._stdin < 0:
            self.unsent.clear()
            return
        try:
            del self.unsent[: os.write(self._stdin, self.unsent[:CHUNK_BYTES])]
        except BlockingIOError:
            pass
        except OSError:
            self.close_stdin()  # it reads no more; whether it has died the guard will tell
            return
        if self.unsent:
            self._listen(self._stdin, self._write_stdin, select.POLLOUT)
        else:
            self._forget(self._stdin)

    def _read_stdout(self) -> None:
        if len(self.stdout) > self._line_bytes:
            return  # too much already, whatever else is there
        piece = _read(self._stdout)
        if piece is None:
            return
        self.stdout += piece
        if not piece:
            self._drop_stdout()

    def _read_stderr(self) -> None:
        piece = _read(self._errors)
        if piece is None:
            return
        self._stderr.add(piece)
        if not piece:
            self._forget(self._errors)

    def _read_control(self) -> None:
        piece = _read(self._control.fileno())
        if piece is None:
            return
        if not piece:
            self._forget(self._control.fileno())
        *lines, self._answers = (self._answers + piece).split(b"\n")
        for line in lines:
            self._note(line.decode("utf-8", "replace"))

    def _note(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "pid":
            self.pid = int(rest)
            with suppress(psutil.NoSuchProcess):
                self._process = psutil.Process(self.pid)
        elif word == "exit":
            status, max_rss_kib = map(int, rest.split())
            self.ended = Ended.from_wait(status, max_rss_kib)
        else:
            self._failed = rest


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if f"{MARK}={mark}".encode() in variables:
                yield process


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _read(descriptor: int) -> bytes | None:
    """What is there: None if nothing yet, empty at the end."""
    try:
        return os.read(descriptor, CHUNK_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _start_guard() -> tuple[subprocess.Popen[bytes], socket.socket, int, int, int]:
    control, other = socket.socketpair()
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    ours_err, theirs_err = os.pipe()
    command = [sys.executable, "-I", "-S", str(Path(guard.__file__).resolve()), str(other.fileno())]
    try:
        process = subprocess.Popen(
            command,
            stdin=theirs_in,
            stdout=theirs_out,
            stderr=theirs_err,
            pass_fds=(other.fileno(),),
            start_new_session=True,
        )
    except BaseException:
        control.close()
        for descriptor in (ours_in, ours_out, ours_err):
            os.close(descriptor)
        raise
    finally:
        other.close()
        for descriptor in (theirs_in, theirs_out, theirs_err):
            os.close(descriptor)
    return process, control, ours_in, ours_out, ours_err
