"""Who may use what on this host at one time: timed rows have it to themselves, a GPU belongs to one trial.

Locks are of the kernel (flock): a process that dies in any way gives them back. They hold among all trials of one
host that share its directory of temporary files; containers with one of their own do not see each other.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_DIRECTORY = "falsify-locks"
_PAUSE_S = 0.02
_UNSAFE = re.compile(r"[^A-Za-z0-9-]")
PATIENCE_S = 1800.0
"""A row waits this long for the host; the longest row of another trial is far shorter."""


class HostBusy(Exception):
    """Another trial of this host held what a row needs for longer than anybody should wait."""

    def __init__(self, what: str, waited_s: float) -> None:
        self.what, self.waited_s = what, waited_s
        super().__init__(f"another trial on this host held {what} for {waited_s:.0f} s")


def lock_directory() -> Path:
    """Where the locks of this host lie: open to all users, like the directory that holds it."""
    path = Path(tempfile.gettempdir()) / _DIRECTORY
    with suppress(FileExistsError):
        path.mkdir()
        path.chmod(0o1777)
    return path


@contextmanager
def timing(*, alone: bool, patience_s: float = PATIENCE_S, directory: Path | None = None) -> Iterator[None]:
    """Hold the host for one row: shared with others, or `alone`.

    A row that waits to be alone keeps others from starting, so that it is not overtaken for ever.

    Raises:
        HostBusy: `patience_s` seconds went by.
    """
    where = directory or lock_directory()
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with ExitStack() as host:
        with _held(where / "turnstile", kind, patience_s):
            host.enter_context(_held(where / "host", kind, patience_s))
        yield


@contextmanager
def much_memory(*, patience_s: float = PATIENCE_S, directory: Path | None = None) -> Iterator[None]:
    """Hold the right to make the engine take gigabytes of memory: two at one time could take all that the host has.

    Raises:
        HostBusy: `patience_s` seconds went by.
    """
    with _held((directory or lock_directory()) / "memory", fcntl.LOCK_EX, patience_s):
        yield


@contextmanager
def leased_gpu(
    uuid: str,
    *,
    waiting: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
    directory: Path | None = None,
) -> Iterator[None]:
    """Hold a GPU for a whole trial, so that no row has another trial as a tenant.

    Args:
        uuid: The device, as NVML names it.
        waiting: Called once if the device is not free.
        stopped: True once nobody wants it any more: the block then runs without it, and must try nothing.
        directory: Of the locks; for tests.
    """
    path = (directory or lock_directory()) / f"gpu-{_UNSAFE.sub('-', uuid)}"
    with _held(path, fcntl.LOCK_EX, float("inf"), waiting, stopped):
        yield


@contextmanager
def _held(
    path: Path,
    kind: int,
    patience_s: float,
    waiting: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        began, told = time.monotonic(), False
        while not (taken(descriptor, kind) or stopped()):
            if not told:
                waiting()
                told = True
            if time.monotonic() - began > patience_s:
                raise HostBusy(path.name, patience_s)
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def taken(descriptor: int, kind: int) -> bool:
    """Try to lock an open file, shared or alone; False where somebody else has it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
