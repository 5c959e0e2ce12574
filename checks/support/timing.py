"""Rates of the link: the engine's, by the difference of two counts from outside, and our own in the same run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from conformance.probes import link
from conformance.protocol.client import Engine
from conformance.protocol.messages import Drop, Stage, TensorData, UploadStaged
from conformance.statistics import Decision, decide_rate
from conformance.thresholds import Limit
from conformance.trial.stand import NotTried, Stand

STAGED_COUNTS = (8, 72)


def decided(limit: Limit, values: Sequence[float]) -> bool:
    """Whether rule R1 needs no more values; the judge decides for itself, from the same numbers."""
    assert limit.limit is not None
    assert limit.alpha is not None
    assert limit.max_sd is not None
    found = decide_rate(
        values,
        limit.limit,
        larger_is_better=limit.relation in {">", ">="},
        alpha=limit.alpha,
        looks=limit.looks,
        max_sd=limit.max_sd,
    )
    return found.decision is not Decision.UNDECIDED


def pinned_rate(engine: Engine, device: int, source: TensorData) -> float:
    """Host-to-device bytes per second from input staged in page-locked memory."""
    staged = engine.call("storage.stage", Stage(device, [source], pinned=True))
    engine.call("storage.upload_staged", UploadStaged(staged.handle, 1))
    rate = staged_rate(engine, staged.handle, source.nbytes)
    engine.call("storage.drop", Drop([staged.handle]))
    return rate


def staged_rate(engine: Engine, staged: int, nbytes: int) -> float:
    """Bytes per second from input that is staged already; the difference of two counts cancels fixed cost."""
    few, many = STAGED_COUNTS
    short, long = (_seconds(engine, staged, repeat) for repeat in (few, many))
    return (many - few) * nbytes / max(long - short, 1e-9)


def _seconds(engine: Engine, staged: int, repeat: int) -> float:
    began = time.perf_counter()
    engine.call("storage.upload_staged", UploadStaged(staged, repeat))
    return time.perf_counter() - began


def link_rates(stand: Stand) -> dict[str, float]:
    """Bytes per second of the link in this run, measured by ourselves in a process of our own: pinned and pageable."""
    return _link_rates(stand.plan.device_index, stand.plan.run_dir)


@cache
def _link_rates(device_index: int, run_dir: str) -> dict[str, float]:
    del run_dir
    command = [sys.executable, str(Path(link.__file__)), str(device_index)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    except subprocess.SubprocessError as error:
        raise NotTried(f"our own measurement of the link failed: {error}") from error
    rates: dict[str, float] = json.loads(answer.stdout)
    return rates
