"""Kernels brought to a device side by side, and each launcher by one thread of one process at a time.

Triton builds the launcher of a kernel as a C extension in its cache, and whoever builds the same one later replaces the
file. CPython knows the libraries that it has opened by device and inode, and notes the inode before it opens the path
(`_PyImport_FindSharedFuncptr`). A file replaced between the two leaves a freed inode in that table, and the next
launcher whose file gets this number is taken for the one opened then: "function takes exactly 29 arguments (25 given)",
from kernels that are right.
"""

from __future__ import annotations

import fcntl
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reference_engine.kernels.toolchain import triton

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from reference_engine.kernels.step import Launch

LOCK = "launchers.lock"


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
        for turn in turns(compiled):
            list(pool.map(lambda kernel: kernel._init_handles(), turn))  # noqa: SLF001 - the public ways launch


def turns(kernels: Iterable[Any]) -> list[list[Any]]:
    """Compiled kernels in turns: no two of a turn have a launcher in common, which Triton makes of the signature."""
    alike: defaultdict[tuple[str, ...], list[Any]] = defaultdict(list)
    for kernel in kernels:
        alike[tuple(kernel.src.signature.values())].append(kernel)
    return [[kernel for kernel in turn if kernel is not None] for turn in zip_longest(*alike.values())]


@contextmanager
def _alone_with(cache: Path) -> Iterator[None]:
    """Wait for other processes that are loading kernels through the same cache."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / LOCK).open("w") as lock:
        # Goes with the file, and with the process whatever ends it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
