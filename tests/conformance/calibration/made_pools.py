"""Pools made up with known means, spreads and leaks."""

import numpy as np

from conformance.calibration.pool import RATE_SERIES, SCHEMA, Pool, Session, Timed, grown

SLOWDOWNS = (0.0, 0.01, 0.02, 0.05, 0.1)
LEAKS = (1024, 4 << 20)
PAGE = 2 << 20
RATES = {"decode", "pinned"}
ENVIRONMENT = {"gpus": [], "cpu": {"model": "a CPU", "cores": 2}, "python": "3.12.3", "libraries": {"torch": "2.11.0"}}


def session(**changed):
    fields = {
        "schema": SCHEMA, "started": "2026-01-01T00:00:00+00:00", "revision": "git:0", "seed": 0, "gpu": False,
        "checkpoint": "fixture F32", "slowdowns": SLOWDOWNS, "leaks": LEAKS, "environment": ENVIRONMENT,
    }  # fmt: skip
    return Session(**fields | changed)


def timed(count, spread, seed=0):
    source = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        noise = {name: np.exp(source.normal(0, spread, len(SLOWDOWNS))) for name in RATE_SERIES}
        slow = 1 + np.array(SLOWDOWNS)
        lines.append(
            Timed({n: [float(v) for v in (100 / (slow * x) if n in RATES else slow * x)] for n, x in noise.items()})
        )
    return tuple(lines)


def series(row, leak, accounted, *, count=12, operations=44, warm_up=12, noise_seed=None):
    found = []
    for number in range(count):
        held = np.cumsum(np.full(operations, leak))
        noise = (
            0 if noise_seed is None else np.random.default_rng(noise_seed + number).integers(0, 3, operations) * PAGE
        )
        witness = 100 * PAGE + -(-held // PAGE) * PAGE + noise
        account = held if accounted else np.zeros(operations, dtype=int)
        found.append(grown(row, leak, accounted, warm_up, "NVML", account.tolist(), witness.tolist()))
    return found


def pool(count=60, spread=0.02, rows=("F-CUDA-020", "F-MEM-032", "F-PERF-087")):
    lines = [g for row in rows for leak, kind in [(0, False), (1024, True), (1024, False), (4 << 20, False)]
             for g in series(row, leak, kind)]  # fmt: skip
    return Pool((session(),), timed(count, spread), tuple(lines))
