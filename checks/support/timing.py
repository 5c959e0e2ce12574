"""Timed values from outside: one per fresh process, by the difference of two counts, until the rule can decide."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from checks.support.tensors import bits_of, host_tensor
from conformance.probes import link
from conformance.protocol.client import Engine
from conformance.protocol.messages import Handle, Stage, UploadStaged
from conformance.statistics import Decision, decide_rate
from conformance.thresholds import Limit
from conformance.trial.stand import NotTried, Stand

_STAGED_BYTES = 512 * 1024 * 1024
_FEW, _MANY = 4, 24


def collect(stand: Stand, name: str, measure: Callable[[Engine], float]) -> list[float]:
    """Values from fresh processes, looked at as the thresholds plan, ending as soon as rule R1 decides.

    The first process is not counted: it pays for the page cache and the driver's files.
    """
    limit = stand.thresholds.limit(stand.row.id, name)
    assert limit is not None
    _in_fresh_process(stand, measure)
    values: list[float] = []
    for look in limit.looks:
        values += [_in_fresh_process(stand, measure) for _ in range(look - len(values))]
        if decided(limit, values):
            break
    return values


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


def _in_fresh_process(stand: Stand, measure: Callable[[Engine], float]) -> float:
    with stand.engine.fresh() as engine:
        return measure(engine)


def staged_rate(stand: Stand, engine: Engine, *, pinned: bool) -> float:
    """Host-to-device bytes per second from staged input; the difference of two counts cancels fixed cost."""
    count = _STAGED_BYTES // 4
    with stand.opened_device_of(engine) as device:
        source = host_tensor(stand, "F32", [count], bits_of("F32", count, stand.random))
        staged = engine.call("storage.stage", Stage(device.handle, [source], pinned))
        few, many = (_seconds(engine, staged.handle, repeat) for repeat in (_FEW, _MANY))
        engine.call("device.synchronize", Handle(device.handle))
    return (_MANY - _FEW) * _STAGED_BYTES / max(many - few, 1e-9)


def _seconds(engine: Engine, staged: int, repeat: int) -> float:
    engine.call("storage.upload_staged", UploadStaged(staged, 1))
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
