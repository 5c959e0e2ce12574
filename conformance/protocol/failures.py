"""What can go wrong between the harness and a driver, each with its evidence in fields and one line of text."""

from __future__ import annotations

import shlex
import signal as signals
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from conformance.protocol.messages import Capability, ErrorKind

EndedBy = Literal["driver", "harness"]


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11; a number that has no name stays a number."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


class EngineRefused(Exception):
    """The engine answered a request with a typed error; its process goes on.

    Attributes:
        method: The method that was asked.
        kind: What went wrong in the suite's words; `internal` where the engine names none.
        type: The engine's own name for the error.
        message: The engine's own text.
        fields: What the engine's error carries.
        code: The JSON-RPC error code.
    """

    def __init__(
        self,
        method: str,
        *,
        kind: ErrorKind,
        message: str,
        code: int,
        type: str = "",  # noqa: A002 - the field's name in the protocol
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        self.method = method
        self.kind = kind
        self.type = type
        self.message = message
        self.fields = dict(fields or {})
        self.code = code
        named = f"{kind} ({type})" if type else str(kind)
        super().__init__(f"{method} was refused: {named}: {_one_line(message)}")


class CapabilityNotOffered(Exception):
    """The engine does not claim the capability that a method needs; nothing was sent."""

    def __init__(self, method: str, capability: Capability) -> None:
        self.method = method
        self.capability = capability
        super().__init__(f"{method} needs the capability {capability}, which the engine does not offer")


class DriverFailure(Exception):
    """A driver that could not go on; when this is raised its process and all descendants are gone.

    Attributes:
        method: The call during which it happened; empty when there was none.
        stderr_tail: The last of what the driver wrote to its standard error.
    """

    def __init__(self, text: str, *, method: str = "", stderr_tail: str = "") -> None:
        self.method = method
        self.stderr_tail = stderr_tail
        super().__init__(text)


class DriverDied(DriverFailure):
    """The process ended before it answered.

    Attributes:
        signal: The signal that ended it, or None.
        exit_status: What it passed to exit, or None after a signal.
        ended_by: `driver` also covers a kill from outside, such as the kernel's on lack of memory.
        max_rss: The peak of its resident memory in bytes, 0 if unknown.
    """

    def __init__(
        self,
        method: str,
        *,
        signal: int | None,
        exit_status: int | None,
        ended_by: EndedBy,
        stderr_tail: str,
        max_rss: int,
    ) -> None:
        self.signal = signal
        self.exit_status = exit_status
        self.ended_by = ended_by
        self.max_rss = max_rss
        super().__init__(f"the driver {self._how()} during {method}", method=method, stderr_tail=stderr_tail)

    def _how(self) -> str:
        if self.ended_by == "harness":
            return "had been ended by the harness"
        if self.signal is not None:
            return f"died of {signal_name(self.signal)}"
        if self.exit_status is None:
            return "died, and took the evidence with it,"
        return f"exited with {self.exit_status}"


class DriverHung(DriverFailure):
    """No answer within the time allowed; `unread` is how many bytes of the request it had not even read."""

    def __init__(self, method: str, *, seconds: float, stderr_tail: str, unread: int = 0) -> None:
        self.seconds = seconds
        self.unread = unread
        cause = f"{unread} bytes of the request were never read" if unread else "no answer came"
        text = f"the driver hung in {method}: {cause} within {seconds:g} s"
        super().__init__(text, method=method, stderr_tail=stderr_tail)


class DriverStarved(DriverFailure):
    """No answer, and most of the `seconds` that went by other processes had the processors: nobody can say why."""

    def __init__(self, method: str, *, seconds: float, stderr_tail: str) -> None:
        self.seconds = seconds
        text = f"no answer to {method} within {seconds:.0f} s, but other processes kept the driver from a processor"
        super().__init__(text, method=method, stderr_tail=stderr_tail)


class ProtocolViolated(DriverFailure):
    """The driver said something that is not an answer to what was asked; `detail` says what."""

    def __init__(self, method: str, *, detail: str, stderr_tail: str) -> None:
        self.detail = detail
        text = f"the driver broke the protocol in {method}: {detail}"
        super().__init__(text, method=method, stderr_tail=stderr_tail)


class DriverNotStarted(DriverFailure):
    """The command could not be run, or the session could not be opened; `cause` says why.

    Where a process had started, `__cause__` is the failure with its evidence.
    """

    def __init__(self, command: Sequence[str], *, cause: str, stderr_tail: str) -> None:
        self.command = list(command)
        self.cause = cause
        text = f"the driver did not start: {cause} (command: {shlex.join(self.command)})"
        super().__init__(text, method="initialize", stderr_tail=stderr_tail)


class DriverOutgrew(DriverFailure):
    """Resident memory of the driver and its children went over the limit; `rss` and `limit` in bytes."""

    def __init__(self, method: str, *, rss: int, limit: int, stderr_tail: str) -> None:
        self.rss = rss
        self.limit = limit
        text = f"the driver outgrew {limit / 2**20:.0f} MiB of memory in {method} ({rss / 2**20:.0f} MiB resident)"
        super().__init__(text, method=method, stderr_tail=stderr_tail)


def _one_line(text: str, limit: int = 500) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[:limit] + "…"
