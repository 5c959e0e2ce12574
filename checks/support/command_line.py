"""The engine's command line as a user runs it: through pipes and a pseudo-terminal, watched by NVML."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import msgspec

from conformance.manifest import CliTable
from conformance.probes.nvml import process_memory
from conformance.protocol.guard import descendants
from conformance.protocol.process import GuardedProcess
from conformance.protocol.starvation import Patience
from conformance.trial.launching import engine_environment
from conformance.trial.stand import NotTried, Stand

_TRACEBACKS = ("Traceback (most recent call last)", "panicked at", "terminate called", "core dumped", "fatal runtime")
_OUTPUT_BYTES = 4 * 1024 * 1024
_POLL_S = 0.02
_ENDS_S = 120.0
_SLOWER, _SLOWER_BY_S = 4.0, 10.0
_UNREADABLE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


class Output(msgspec.Struct, frozen=True):
    """A finished command: exit status (negative: the signal; None: out of time), its streams, and device memory.

    `device_bytes` is the most that NVML saw the process hold, None where nobody looked. Through a pseudo-terminal
    both streams are one, in `stdout`.
    """

    status: int | None
    stdout: str
    stderr: str
    seconds: float
    device_bytes: int | None = None

    @property
    def first_error(self) -> str:
        """The first line of standard error that says anything."""
        return next((line.strip() for line in self.stderr.splitlines() if line.strip()), "")

    @property
    def trace(self) -> str | None:
        """The mark of a traceback or panic in either stream; None if there is none."""
        return next((mark for mark in _TRACEBACKS if mark in self.stdout or mark in self.stderr), None)


def cli(stand: Stand) -> CliTable:
    """The manifest's command line.

    Raises:
        NotTried: it has none.
    """
    table = stand.manifest.manifest.cli
    if table is None:
        raise NotTried("capability cli is not offered: the manifest has no [cli] table")
    return table


def arguments(
    stand: Stand, template: Sequence[str], *, model: Path, prompt: str = "", max_tokens: int = 32
) -> list[str]:
    """A whole command: the program, then the template filled in."""
    values = {"model": str(model), "prompt": prompt, "max_tokens": str(max_tokens)}
    return [*stand.manifest.filled(cli(stand).command), *stand.manifest.filled(template, **values)]


def device_flags(stand: Stand) -> tuple[str, ...]:
    """`--gpu` on a GPU machine, `--no-gpu` in a rehearsal."""
    return cli(stand).gpu if stand.gpu else cli(stand).cpu


class Running:
    """A command that runs while others are waited for; `result` waits for it, and leaving the block ends it."""

    def __init__(self, stand: Stand, command: Sequence[str], stdin: bytes, env: dict[str, str]) -> None:
        self._began = time.monotonic()
        self._process = GuardedProcess(
            list(command),
            cwd=stand.directory,
            env=engine_environment(cli(stand).env | env),
            line_bytes=_OUTPUT_BYTES,
            stderr_bytes=_OUTPUT_BYTES,
        )
        self._device = stand.plan.device_index
        self._stdin = stdin

    def __enter__(self) -> Self:
        try:
            self._process.send(self._stdin)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def result(self, timeout: float = _ENDS_S, *, watch_device: bool = False) -> Output:
        """Wait to the end; what it said, and with `watch_device` what it held while it was waited for."""
        process = self._process
        try:
            patience = Patience(timeout, process.family)
            probe = _device_probe(self._device, process.pid) if watch_device else None
            peak, ended = _wait(process, patience, probe)
            process.drain(lambda: process.stdout_open)
        finally:
            told = process.stdout.decode(errors="replace")
            process.kill()
        return Output(ended, told, process.stderr_tail(), time.monotonic() - self._began, peak)


def begun(
    stand: Stand, command: Sequence[str], *, stdin: bytes = b"", env: dict[str, str] | None = None,
    unprivileged: bool = False,
) -> Running:  # fmt: skip
    """A command with pipes, started at once. `unprivileged` drops root's right to read everything."""
    whole = [*_UNREADABLE, *command] if unprivileged and os.geteuid() == 0 else list(command)
    return Running(stand, whole, stdin, env or {})


def run_command(
    stand: Stand,
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout: float = _ENDS_S,
    watch_device: bool = False,
    unprivileged: bool = False,
) -> Output:
    """Run to the end through pipes."""
    with begun(stand, command, stdin=stdin, unprivileged=unprivileged) as running:
        return running.result(timeout, watch_device=watch_device)


def _device_probe(device_index: int, pid: int) -> Callable[[], int]:
    return lambda: process_memory(device_index, pid) or 0


def _over(patience: Patience) -> bool:
    """True once the command had its time.

    Raises:
        NotTried: it never got it.
    """
    if patience.left() <= 0:
        return True
    if patience.worn_out:
        waited = patience.waited
        raise NotTried(f"no end within {waited:.0f} s, but other processes kept the command from a processor")
    return False


def _wait(
    process: GuardedProcess, patience: Patience, probe: Callable[[], int] | None
) -> tuple[int | None, int | None]:
    """Feed and read until it ends: the most that the probe saw, and the exit status."""
    peak: int | None = None
    while not process.over and not _over(patience):
        process.pump(_POLL_S)
        if not process.unsent:
            process.close_stdin()
        if probe is not None:
            peak = max(peak or 0, probe())
    ended = process.ended
    if ended is None:
        return peak, None
    return peak, ended.exit_status if ended.signal is None else -ended.signal


class Step(msgspec.Struct, frozen=True):
    """One step of a dialogue on a terminal: wait until the pattern is seen, and `pause` seconds more, then send.

    A program that a signal reaches between its last look and the read of its terminal sleeps on, by no fault of its
    own (signal(7)); nobody types within microseconds of a prompt.
    """

    wait_for: str
    send: bytes
    pause: float = 0.0


def enough_for(piped: Output) -> float:
    """Seconds that a command may take for two answers on a terminal which gave one through pipes.

    A terminal costs microseconds. So much slower is only what waits for something that does not come, on whatever
    machine: what others take from the command is not counted (`Patience`), and all else slows both. A command that
    failed says nothing of the time that it needs.
    """
    return min(_ENDS_S, _SLOWER_BY_S + _SLOWER * piped.seconds) if piped.status == 0 else _ENDS_S


def on_terminal(stand: Stand, command: Sequence[str], steps: Sequence[Step], *, timeout: float = _ENDS_S) -> Output:
    """Run in a pseudo-terminal of its own session and hold a dialogue; ^C and ^D are sent as a terminal sends them."""
    began = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        _become(stand, command)
    try:
        seen, told = "", 0
        pending = list(steps)
        patience = Patience(timeout, lambda: [pid, *descendants(pid)])
        while not _over(patience):
            if pending and (match := re.search(pending[0].wait_for, seen[told:])):
                told += match.end()
                step = pending.pop(0)
                time.sleep(step.pause)
                os.write(terminal, step.send)
            piece = _read_terminal(terminal)
            if piece is None:
                break
            seen += piece
        return Output(_status(pid, patience), seen, "", time.monotonic() - began)
    except BaseException:
        _kill(pid)
        raise
    finally:
        os.close(terminal)


def _kill(pid: int) -> None:
    """End a process and what else is in its session."""
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _become(stand: Stand, command: Sequence[str]) -> None:
    """The child's side: never returns."""
    try:
        # A harness that was started in the background ignores ^C, and so would the program under the terminal.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.chdir(stand.directory)
        environment = engine_environment(cli(stand).env | {"TERM": "dumb", "COLUMNS": "200"})
        os.execvpe(command[0], list(command), environment)  # noqa: S606  arguments are a list, no shell
    finally:
        os._exit(127)


def _read_terminal(terminal: int) -> str | None:
    """What the terminal shows now; None when the other side is gone."""
    if not select.select([terminal], [], [], _POLL_S)[0]:
        return ""
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        return None
    return piece.decode(errors="replace") if piece else None


def _status(pid: int, patience: Patience) -> int | None:
    """The exit status; None where the process had its time and had to be killed."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if _over(patience):
            _kill(pid)
            return None
        time.sleep(_POLL_S)


def answer_of(stand: Stand, output: Output) -> str:
    """The generated text inside the program's standard output, by the manifest's pattern."""
    found = re.search(cli(stand).answer, output.stdout, re.DOTALL)
    return (found.group("answer") if found else "").strip("\r\n")
