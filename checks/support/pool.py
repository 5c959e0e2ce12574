"""One pool of fresh processes for all timed rows: each process yields one value for every one of them.

The process is up and its device open when loading is timed: importing libraries and making a context is no
loading, and is told apart. Processes are started side by side and measured one after another, so that imports do not
add up; until its turn a process holds no context. The first process of a pool finds cold caches: it is told beside
the others and never among them. Everything is timed from outside, on the geometry checkpoint (Qwen2.5-1.5B's shapes,
F32, batch 1), from a warm page cache. Decoding is the difference of two lengths, so that prefill and fixed cost
cancel.

A process does what the trial's rows need and what comes before that in a process of the whole trial, and then ends;
a trial of the link alone loads no model.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np

from checks.support.tensors import bits_of, host_tensor
from checks.support.timing import decided, pinned_rate
from conformance.corpus.geometry import geometry_checkpoint
from conformance.environment import usable_cores
from conformance.probes.nvml import memory_in_use, process_memory, utilisation
from conformance.protocol.client import Engine
from conformance.protocol.failures import CapabilityNotOffered, EngineRefused
from conformance.protocol.messages import (
    DeviceOpen,
    Generate,
    Generation,
    Handle,
    Logits,
    ModelLoad,
    ModelLoaded,
    TensorData,
)
from conformance.trial.launching import launch_of
from conformance.trial.stand import Stand

PROMPT, SHORT, LONG = 128, 17, 273
LONG_PROMPT = 1000
CPU_SHORT, CPU_LONG = 3, 11
CHECKED_STEPS = 32
UTILISATION_TOKENS = 1200
UTILISATION_SECONDS = 4.0
_POLL_S = 0.01
_IDS = 151643
STAGED_BYTES = 128 * 1024 * 1024


LOAD, FIRST_TOKENS, DECODE, LINK = "load", "first tokens", "decode", "link"
_TO_DECODE = (LOAD, FIRST_TOKENS, DECODE)
NEEDS = {
    "F-MEM-029": (LINK,),
    "F-MEM-033": (LINK,),
    "F-PERF-081": (LOAD,),
    "F-PERF-082": (LOAD, FIRST_TOKENS),
    "F-PERF-083": _TO_DECODE,
    "F-PERF-084": _TO_DECODE,
    "F-PERF-086": _TO_DECODE,
    "F-PERF-089": _TO_DECODE,
}
"""What each row of the pool needs a process to have done; in the order of a process, without gaps."""


class Run(msgspec.Struct, frozen=True):
    """What one fresh process showed, of what the trial's rows need: seconds, tokens a second, bytes.

    `values` has `open_s`, `load_s` and `weight_bytes` of loading, `first_token_32_s` and `first_token_1000_s`,
    `decode_rate`, `pinned_rate` of the link, and `peak_bytes`, NVML's for the process until the model is unloaded.
    """

    values: dict[str, float]
    ids: list[int]
    wrong_steps: list[int]

    def __getitem__(self, name: str) -> float:
        """A value by its name; KeyError where the row did not say in `NEEDS` that it needs it."""
        return self.values[name]


_POOL: list[Run] = []


def sample(stand: Stand, name: str, value_of: Callable[[Run], float]) -> list[float]:
    """Values for a row from the pool, which grows until rule R1 can decide this row or its last look is reached."""
    limit = stand.thresholds.limit(stand.row.id, name)
    assert limit is not None
    values: list[float] = []
    for look in limit.looks:
        _grow(stand, 1 + look)
        values = [value_of(run) for run in all_runs(stand)[1 : 1 + look]]
        if decided(limit, values):
            break
    return values


def all_runs(stand: Stand) -> Sequence[Run]:
    """The runs so far, the first one with cold caches; at least one."""
    if LOAD in NEEDS[stand.row.id]:
        stand.weights = "geometry"
    _grow(stand, 1)
    return _POOL


def prompt_ids(length: int, seed: int = 0) -> list[int]:
    """Seeded ids below the tokenizer's specials."""
    source = random.Random(seed)  # noqa: S311  reproducible prompts
    return [source.randrange(_IDS) for _ in range(length)]


def _grow(stand: Stand, size: int) -> None:
    """Bring the pool to this many runs."""
    missing = size - len(_POOL)
    if missing <= 0:
        return
    needs = frozenset(part for row in stand.plan.rows for part in NEEDS.get(row, ()))
    source = _staged_source(stand) if LINK in needs else None
    if not _POOL and LOAD in needs:
        _warm(geometry_checkpoint("F32"))
    with ExitStack() as stack:
        engines = [stack.enter_context(stand.engine.fresh()) for _ in range(missing)]
        start_together(engines)
        for engine in engines:
            _POOL.append(_one_run(stand, engine, needs, source))
            engine.close()


def start_together(engines: Sequence[Engine]) -> None:
    """Start processes side by side and let each import what it needs, without a context on the device."""

    def start(engine: Engine) -> None:
        with suppress(EngineRefused, CapabilityNotOffered):
            opened = engine.call("device.open", DeviceOpen(0, "cpu"))
            engine.call("device.close", Handle(opened.handle))

    with ThreadPoolExecutor(max(1, min(len(engines), usable_cores()))) as threads:
        list(threads.map(start, engines))


def _one_run(stand: Stand, engine: Engine, needs: AbstractSet[str], source: TensorData | None) -> Run:
    values: dict[str, float] = {}
    ids: list[int] = []
    wrong: list[int] = []
    if LOAD in needs:
        index, pid = stand.plan.device_index, engine.pid
        with peak_of(lambda: process_memory(index, pid) or memory_in_use(index)) as peak:
            began = time.perf_counter()
            with stand.opened_device_of(engine):
                values["open_s"] = time.perf_counter() - began
            model = _load(stand, engine, values)
            if FIRST_TOKENS in needs:
                values["first_token_32_s"] = timed(engine, model, prompt_ids(32), 1)
                values["first_token_1000_s"] = timed(engine, model, prompt_ids(LONG_PROMPT), 1)
            if DECODE in needs:
                values["decode_rate"], ids = decode_rate(engine, model, SHORT, LONG)
                wrong = _not_computed(stand, engine, model, ids)
        values["peak_bytes"] = max(peak)
        engine.call("model.unload", Handle(model.handle))
    if source is not None:
        with stand.opened_device_of(engine) as device:
            values["pinned_rate"] = pinned_rate(engine, device.handle, source)
    return Run(values, ids, wrong)


def _load(stand: Stand, engine: Engine, values: dict[str, float]) -> ModelLoaded:
    began = time.perf_counter()
    load = ModelLoad(str(geometry_checkpoint("F32")), stand.model_device, "F32")
    model: ModelLoaded = engine.call("model.load", load)
    values |= {"load_s": time.perf_counter() - began, "weight_bytes": model.weight_bytes}
    return model


def _staged_source(stand: Stand) -> TensorData:
    count = STAGED_BYTES // 4
    return host_tensor(stand, "F32", [count], bits_of("F32", count, stand.random))


def decode_rate(engine: Engine, model: ModelLoaded, short: int, long: int) -> tuple[float, list[int]]:
    """Tokens a second by the difference of two lengths, and the ids of the long one."""
    prompt = prompt_ids(PROMPT)
    timed(engine, model, prompt, short)
    few = timed(engine, model, prompt, short)
    began = time.perf_counter()
    answer = _generate(engine, model, prompt, long)
    many = time.perf_counter() - began
    return (long - short) / max(many - few, 1e-9), list(answer.ids)


def timed(engine: Engine, model: ModelLoaded, prompt: list[int], count: int) -> float:
    """Seconds from the request to its answer."""
    began = time.perf_counter()
    _generate(engine, model, prompt, count)
    return time.perf_counter() - began


def _generate(engine: Engine, model: ModelLoaded, prompt: list[int], count: int) -> Generation:
    request = Generate(model.handle, count, prompt_ids=prompt, ignore_eos=True)
    answer: Generation = engine.call("generate", request)
    return answer


def _not_computed(stand: Stand, engine: Engine, model: ModelLoaded, ids: list[int]) -> list[int]:
    """Steps whose id is not the argmax of the teacher-forced logits, near-ties apart: tokens that nobody computed."""
    if len(ids) != LONG:
        return list(range(len(ids), LONG))
    whole = [*prompt_ids(PROMPT), *ids]
    request = Logits(model.handle, whole[:-1], last=CHECKED_STEPS)
    logits = stand.read_tensor(engine.call("model.logits", request))
    chosen = np.array(ids[-CHECKED_STEPS:])
    gaps = logits.max(axis=1) - np.take_along_axis(logits, chosen[:, None], axis=1)[:, 0]
    limit = stand.thresholds.limit(stand.row.id, "not_computed")
    margin = limit.tie_margin if limit is not None and limit.tie_margin is not None else 0.0
    return [LONG - CHECKED_STEPS + int(step) for step in np.flatnonzero(gaps > margin)]


def cpu_rates(stand: Stand, count: int = 3) -> list[float]:
    """Decoding on the engine's CPU path in a fresh process, on all cores: the fairest opponent it has."""
    with Engine(launch_of(stand.manifest, stand.plan, threads=usable_cores())) as engine:
        model = engine.call("model.load", ModelLoad(str(geometry_checkpoint("F32")), "cpu", "F32"))
        return [decode_rate(engine, model, CPU_SHORT, CPU_LONG)[0] for _ in range(count)]


def utilisation_while_decoding(stand: Stand) -> tuple[list[int], float, float]:
    """NVML's utilisation samples while decoding, the edges dropped; seconds, and the rate in tokens a second."""
    with stand.engine.fresh() as engine:
        model = engine.call("model.load", ModelLoad(str(geometry_checkpoint("F32")), stand.model_device, "F32"))
        timed(engine, model, prompt_ids(PROMPT), SHORT)
        with peak_of(lambda: utilisation(stand.plan.device_index), 0.1) as seen:
            requests, seconds = 0, 0.0
            # A fast engine needs several requests to be busy for as long as NVML takes to see it.
            while seconds < UTILISATION_SECONDS:
                seconds += timed(engine, model, prompt_ids(PROMPT), UTILISATION_TOKENS)
                requests += 1
        engine.call("model.unload", Handle(model.handle))
    edge = max(1, len(seen) // 10)
    return seen[edge:-edge], seconds, requests * UTILISATION_TOKENS / seconds


@contextmanager
def peak_of(read: Callable[[], int], interval: float = _POLL_S) -> Iterator[list[int]]:
    """Read an instrument again and again in the background while the block runs; the readings."""
    readings = [read()]
    done = threading.Event()

    def poll() -> None:
        while not done.wait(interval):
            readings.append(read())

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield readings
    finally:
        done.set()
        thread.join()


def _warm(directory: Path) -> None:
    """Read the weights once, so that the page cache is as warm as the record says."""
    for path in directory.glob("*.safetensors"):
        with path.open("rb") as file:
            while file.read(64 * 1024 * 1024):
                continue
