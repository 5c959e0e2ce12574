"""What SIGINT, SIGTERM and SIGHUP do to a trial: the first stops what may be stopped, and nothing is left half done."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Value = TypeVar("Value")
Otherwise = TypeVar("Otherwise")


class Stop:
    """Whether somebody asked the trial to stop; work that may be broken off runs inside `attempt`, all else to its end.

    Attributes:
        requested: True once one of the signals came.
    """

    def __init__(self) -> None:
        self.requested = False
        self._may_break_off = False

    def attempt(self, action: Callable[[], Value], otherwise: Otherwise) -> Value | Otherwise:
        """The action's value, or `otherwise` where a signal broke it off or had come before."""
        if self.requested:
            return otherwise
        try:
            try:
                self._may_break_off = True
                value = action()
            finally:
                self._may_break_off = False
        except KeyboardInterrupt:
            self.requested = True
            return otherwise
        return value

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler: breaks an attempt off once, and never anything else."""
        del number, frame
        first, self.requested = not self.requested, True
        if first and self._may_break_off:
            raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Catch the three signals, also where a shell started this process with them ignored, until the block ends."""
    stop = Stop()
    before = {each: signal.signal(each, stop.note) for each in STOPPING}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
