"""Our own measurement of the link: host-to-device bytes per second, pinned and pageable. Run as a script.

It lives in a process of its own, so that the harness never holds a CUDA context.
"""

from __future__ import annotations

import json
import sys
import time

NBYTES = 256 * 1024 * 1024
REPEATS = 12


def measure(device_index: int) -> dict[str, float]:
    """Median rates over `REPEATS` copies of `NBYTES`, in bytes per second."""
    import torch  # noqa: PLC0415  the module is imported where only its path is needed

    device = torch.device("cuda", device_index)
    target = torch.empty(NBYTES, dtype=torch.uint8, device=device)
    pageable = torch.randint(0, 255, (NBYTES,), dtype=torch.uint8)
    sources = {"pageable": pageable, "pinned": pageable.pin_memory()}

    def rate(kind: str) -> float:
        seconds = []
        for _ in range(REPEATS):
            torch.cuda.synchronize(device)
            began = time.perf_counter()
            target.copy_(sources[kind], non_blocking=True)
            torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
        return NBYTES / sorted(seconds)[REPEATS // 2]

    return {kind: rate(kind) for kind in sources}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(int(sys.argv[1]))))
