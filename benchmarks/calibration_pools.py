"""A CPU's calibration pool by several collectors at a time, each pinned to cores of its own.

`python benchmarks/calibration_pools.py OUT --collectors 10 --first-core 8 --processes 6 --seconds 330`. Each leaves
OUT/cpu-pool-N.jsonl and adds to it when called again; no GPU is seen. Then, on any machine:
`falsify calibrate --processes 0 --name cpu --pool OUT/cpu-pool-1.jsonl --pool …`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from conformance.probes.nvml import NONE, VISIBLE

CORES_EACH = 2


def main() -> int:
    """Start the collectors, wait for all, and say what each added; 3 where a pool is still too small."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    here = os.sched_getaffinity(0)
    running = []
    try:
        for number in range(1, options.collectors + 1):
            os.sched_setaffinity(0, cores_of(number, options.first_core))
            running.append(subprocess.Popen(command(number, options), env=os.environ | {VISIBLE: NONE}))
    finally:
        os.sched_setaffinity(0, here)
    codes = [collector.wait() for collector in running]
    print("collectors ended with", codes)
    return max(codes)


def cores_of(number: int, first_core: int) -> set[int]:
    """The cores of a collector, counted from 1."""
    begin = first_core + CORES_EACH * (number - 1)
    return set(range(begin, begin + CORES_EACH))


def command(number: int, options: argparse.Namespace) -> list[str]:
    """What a collector runs; its number is its seed."""
    words = [sys.executable, "-m", "conformance", "calibrate", "--replays", "0", "--seed", str(number)]
    words += ["--pool", str(options.out / f"cpu-pool-{number}.jsonl"), "--out", str(options.out / f"run-{number}")]
    words += ["--processes", str(options.processes), "--seconds", str(options.seconds)]
    return [*words, "--side-by-side", str(CORES_EACH)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--collectors", type=int, default=10)
    parser.add_argument("--first-core", type=int, default=0)
    parser.add_argument("--processes", type=int, default=6, help="in the pool of each collector at the end")
    parser.add_argument("--seconds", type=float, default=330.0, help="begin nothing after so long")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
