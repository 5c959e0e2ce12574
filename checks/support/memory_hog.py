"""Another tenant that fills the device, in a process of its own, so that a load must run out of memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from conformance.trial.stand import NotTried, Stand

_LEFT_FREE_BYTES = 8 * 1024 * 1024
_FILL = """
import sys, torch
index, left = int(sys.argv[1]), int(sys.argv[2])
torch.cuda.set_device(index)
held, step = [], 1 << 30
while step >= 1 << 20:
    free, _ = torch.cuda.mem_get_info()
    if free - left < step:
        step //= 2
        continue
    try:
        held.append(torch.empty(step, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        step //= 2
print(torch.cuda.mem_get_info()[0], flush=True)
sys.stdin.read()
"""


@contextmanager
def device_filled(stand: Stand) -> Iterator[int]:
    """All but a few MiB of the device taken while the block runs; gives the bytes that are left."""
    command = [sys.executable, "-c", _FILL, str(stand.plan.device_index), str(_LEFT_FREE_BYTES)]
    tenant = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert tenant.stdout is not None
        line = tenant.stdout.readline()
        if not line.strip().isdigit():
            raise NotTried("the device could not be filled by a process of ours")
        yield int(line)
    finally:
        tenant.kill()
        tenant.communicate()
