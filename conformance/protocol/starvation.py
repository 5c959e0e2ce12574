"""How long others kept a process from a processor: no engine is to blame for the time that it was not given."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

LOOKS = 10
"""So often within the time allowed is it seen whether others keep the processes from a processor."""
MOST_PATIENCE = 20.0
"""Starved processes are waited for so many times as long as was allowed."""
_NS = 1e9
_RUNNABLE = b"R"


class Thread(msgspec.Struct, frozen=True):
    """What the kernel counted of one thread so far, in seconds, and whether it runs or waits for a processor now.

    A wait is counted when it ends: a thread that waits now has more behind it than `waited`.
    """

    ran: float
    waited: float
    runnable: bool

    def stuck_since(self, before: Thread) -> bool:
        """True where it got no processor between the two looks and did not give one up."""
        return self.runnable and before.runnable and (self.ran, self.waited) == (before.ran, before.waited)


class Starvation:
    """Watches some processes from now on; `look` often, for a wait that has not ended is seen only by that.

    A process with more runnable threads than there are processors keeps itself waiting; that is not counted. Where the
    kernel keeps no such times (`/proc/PID/schedstat`), nothing is.
    """

    def __init__(self, pids: Callable[[], Iterable[int]], clock: Callable[[], float] = time.monotonic) -> None:
        self._pids, self._clock = pids, clock
        self._processors = len(os.sched_getaffinity(0))
        self._began = clock()
        self._first = self._last = self._threads()
        self._moved = dict.fromkeys(self._last, self._began)

    def look(self) -> float:
        """Seconds since the beginning for which others had the processors that these processes were ready to use."""
        now, threads = self._clock(), self._threads()
        waiting = 0.0
        for name, thread in threads.items():
            before = self._last.get(name)
            if before is None or not thread.stuck_since(before):
                self._moved[name] = now
            waiting += now - self._moved[name]
        self._last = {**self._last, **threads}
        ran = sum(thread.ran - self._at_first(name).ran for name, thread in self._last.items())
        waited = sum(thread.waited - self._at_first(name).waited for name, thread in self._last.items())
        return starved_s(now - self._began, ran, waited + waiting, self._processors)

    def _at_first(self, name: str) -> Thread:
        return self._first.get(name, Thread(0.0, 0.0, runnable=False))

    def _threads(self) -> dict[str, Thread]:
        return {name: found for pid in self._pids() for name, found in _of_process(pid).items()}


class Patience:
    """The seconds that some processes may take from now on, without those for which others kept them waiting.

    Nothing is looked at before a tenth of them is over, so that what is quick stays cheap.
    """

    def __init__(
        self, seconds: float, pids: Callable[[], Iterable[int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._pids, self._clock = seconds, pids, clock
        self._began = clock()
        self._starvation: Starvation | None = None
        self._starved = 0.0
        self._next_look = self.interval

    @property
    def interval(self) -> float:
        """Seconds between two looks; `left` must be asked as often."""
        return self._seconds / LOOKS

    @property
    def waited(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    @property
    def worn_out(self) -> bool:
        """True where it makes no sense to wait any longer for processes that do not get their time."""
        return self.waited >= MOST_PATIENCE * self._seconds

    def left(self) -> float:
        """Seconds that they still have; none, or fewer, once they had their time."""
        waited = self.waited
        if waited >= min(self._next_look, self._seconds + self._starved):
            self._next_look = waited + self.interval
            if self._starvation is None:
                self._starvation = Starvation(self._pids, self._clock)
            self._starved = self._starvation.look()
        return self._seconds - (waited - self._starved)


def starved_s(elapsed: float, ran: float, waited: float, processors: int) -> float:
    """Seconds of `elapsed` that were withheld from threads which together ran and waited for so many seconds."""
    wanted = min(ran + waited, processors * elapsed)
    if wanted <= ran:
        return 0.0
    at_one_time = max(1.0, wanted / elapsed)
    return min(elapsed, (wanted - ran) / at_one_time)


def _of_process(pid: int) -> dict[str, Thread]:
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  names alone are wanted
            task = Path(f"/proc/{pid}/task/{name}")
            ran, waited, _ = (task / "schedstat").read_bytes().split()
            # The name in parentheses may contain anything, parentheses and spaces too.
            state = (task / "stat").read_bytes().rpartition(b")")[2].split()[0]
            found[name] = Thread(int(ran) / _NS, int(waited) / _NS, state == _RUNNABLE)
    except (OSError, ValueError, IndexError):  # it ended meanwhile, or the kernel does not count
        return found
    return found
