"""Kernels brought to a device: compiled side by side, their launchers taken into the process one at a time.

Triton's launcher of a kernel is a C extension, and all of them have one name. CPython gives every extension that is
imported a second time under a name the same module, the one in `sys.modules`, and fills it anew: two threads that do so
at once find each other's function in it ("function takes exactly 29 arguments (25 given)"). Only what no thread has
imported before is a module of its own. Processes that fill an empty cache replace each other's files, between the
moment when CPython notes a file's inode and the one when it opens it; so they wait for one another.
"""

from __future__ import annotations

import fcntl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch

from reference_engine.kernels.toolchain import triton

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from reference_engine.kernels.step import Launch

Launcher = tuple[str, ...]
LOCK = "launchers.lock"
LONGEST_WAIT_S = 10.0
POLL_S = 0.005
_imported: set[Launcher] = set()


def load_all(launches: Sequence[Launch], device: torch.device) -> None:
    """Compile every kernel, or find it in Triton's cache, and bring it to the device; nothing runs.

    Raises:
        Exception: Whatever Triton raises where it cannot.
    """
    first, *others = launches
    threads = ThreadPoolExecutor(len(launches), initializer=torch.cuda.set_device, initargs=(device,))
    with _alone_with(Path(triton.knobs.cache.dir)), threads as pool:
        # The first alone: with it, Triton reads all of itself for the keys of its cache.
        compiled = [pool.submit(first.compile).result(), *pool.map(lambda launch: launch.compile(), others)]
        new, known = sorted_out(compiled, _imported)
        _imported.update(map(_launcher, compiled))
        list(pool.map(_bring, new))
        for kernel in known:
            pool.submit(_bring, kernel).result()


def sorted_out(kernels: Iterable[Any], imported: Collection[Launcher]) -> tuple[list[Any], list[Any]]:
    """Kernels whose launcher is new to this process, one of each, and all others."""
    seen = set(imported)
    new: list[Any] = []
    known: list[Any] = []
    for kernel in kernels:
        (known if _launcher(kernel) in seen else new).append(kernel)
        seen.add(_launcher(kernel))
    return new, known


def _launcher(kernel: Any) -> Launcher:
    """What Triton makes a launcher of: kernels that differ in it never share one."""
    return tuple(kernel.src.signature.values())


def _bring(kernel: Any) -> None:
    kernel._init_handles()  # noqa: SLF001 - the public ways launch it too


@contextmanager
def _alone_with(cache: Path) -> Iterator[None]:
    """Wait for other processes that are loading kernels through the same cache, but not for ever: one may hang."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / LOCK).open("w") as lock:
        until = time.monotonic() + LONGEST_WAIT_S
        while not _taken(lock) and time.monotonic() < until:
            time.sleep(POLL_S)
        # Goes with the file, and with the process whatever ends it.
        yield


def _taken(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
