"""Collects the pool: fresh processes of the dosed engine, measured as the trial measures its timed rows."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from checks.support.growing import grown_by_cycles, grown_by_generations, grown_by_uploads, source_of
from checks.support.pool import (
    LONG,
    LONG_PROMPT,
    PROMPT,
    SHORT,
    STAGED_BYTES,
    peak_of,
    prompt_ids,
    start_together,
    timed,
)
from checks.support.quality import loaded_model
from checks.support.timing import staged_rate
from conformance.calibration.dosing import DOSE, Dose, DoseFile
from conformance.calibration.pool import Grown, Line, Pool, PoolFile, Timed, grown, read_pool
from conformance.catalogue import load_catalogue
from conformance.manifest import LoadedManifest
from conformance.observations import Growth
from conformance.probes.nvml import memory_in_use, process_memory, session
from conformance.protocol.client import Engine
from conformance.protocol.failures import DriverFailure, EngineRefused
from conformance.protocol.messages import Drop, Handle, ModelLoad, ModelLoaded, Stage, TensorData, UploadStaged
from conformance.thresholds import load_thresholds
from conformance.trial.launching import launch_of
from conformance.trial.plan import Plan
from conformance.trial.stand import Stand

SLOWDOWNS = (0.0, 0.01, 0.02, 0.05, 0.10)
LEAKS = (1 << 10, 16 << 10, 256 << 10, 4 << 20)
GROWTH_ROWS = ("F-CUDA-020", "F-MEM-032", "F-PERF-087")
UNACCOUNTED_ROWS = ("F-CUDA-020",)
"""Rows whose operation leaves no device open on which the engine could be asked for its account."""
BATCH = 10
MOST_LOST = 3
_TOKENS, _PROMPT = 2, 32
_UPLOADED = 16 * 1024 * 1024
_STAGED_ON_HOST = 32 * 1024 * 1024


@dataclass(frozen=True)
class Bench:
    """Where values are taken, and until when.

    Attributes:
        plan: Of the dosed engine; growth rows generate with its model.
        manifest: Of the dosed engine.
        checkpoint: What timed rows load: the geometry checkpoint on a GPU, the plan's own model without one.
        id_limit: Prompts hold ids below this.
        pool: Where values go.
        deadline: On `time.monotonic`; nothing is begun after it.
        seed: Of the order of doses.
        say: Where progress goes.
    """

    plan: Plan
    manifest: LoadedManifest
    checkpoint: Path
    id_limit: int
    pool: PoolFile
    deadline: float
    seed: int
    say: Callable[[str], None]
    lock: threading.Lock = field(default_factory=threading.Lock)
    lost: list[str] = field(default_factory=list)

    def time_left(self) -> bool:
        """Whether something more may begin."""
        return time.monotonic() < self.deadline

    def keep(self, line: Line) -> None:
        """Append a line to the pool."""
        with self.lock:
            self.pool.append(line)

    @contextmanager
    def losing(self) -> Iterator[None]:
        """A process that dies or refuses is said to be lost, and its value with it; too many end the session."""
        try:
            yield
        except (EngineRefused, DriverFailure) as failure:
            with self.lock:
                self.lost.append(str(failure))
            self.say(f"a process was lost: {failure}")
            if len(self.lost) > MOST_LOST:
                raise

    def prompt(self, length: int) -> list[int]:
        """Seeded ids that the checkpoint has."""
        return [each % self.id_limit for each in prompt_ids(length)]


@dataclass(frozen=True)
class Subject:
    """One fresh process of the dosed engine, and the file that says its dose."""

    stand: Stand
    doses: DoseFile

    @property
    def engine(self) -> Engine:
        """The process."""
        return self.stand.engine


@contextmanager
def subjects(bench: Bench, count: int, row: str) -> Iterator[list[Subject]]:
    """Fresh processes, started side by side; none of them has a context on the device yet."""
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            doses = DoseFile(bench.plan.directory / f"dose-{secrets.token_hex(8)}.json")
            doses.give(Dose())
            launch = launch_of(bench.manifest, bench.plan)
            engine = stack.enter_context(Engine(replace(launch, env=launch.env | {DOSE: str(doses.path)})))
            made.append(
                Subject(Stand(load_catalogue().row(row), bench.plan, bench.manifest, load_thresholds(), engine), doses)
            )
        start_together([subject.engine for subject in made])
        yield made


# --- timed rows -------------------------------------------------------------------------------------------


def collect_timed(bench: Bench, wanted: int) -> None:
    """Add timed processes until the pool has so many; the session's first one finds cold caches and is not kept."""
    there = len(read_pool([bench.pool.path]).timed)
    missing = wanted - there
    if missing <= 0 or not bench.time_left():
        return
    with subjects(bench, 1, "F-PERF-081") as [cold]:
        source = source_of(cold.stand, STAGED_BYTES if bench.plan.gpu else _STAGED_ON_HOST)
        _loaded_once(bench, cold)
    done = 0
    while done < missing and bench.time_left():
        with subjects(bench, min(BATCH, missing - done), "F-PERF-081") as batch:
            for subject in batch:
                if not bench.time_left():
                    return
                order = random.Random(f"{bench.seed}/timed/{there + done}")  # noqa: S311  reproducible order
                with bench.losing():
                    bench.keep(Timed(timed_values(bench, subject, source, order)))
                    done += 1
                    bench.say(f"timed {done} of {missing}")
                subject.engine.close()


def timed_values(bench: Bench, subject: Subject, source: TensorData, order: random.Random) -> dict[str, list[float]]:
    """Each series with one value a slowdown; what can be repeated in a process is, in an order drawn by seed."""
    with _watched(subject):
        values, model = _loaded_once(bench, subject)
        timed(subject.engine, model, bench.prompt(PROMPT), SHORT)
        values["decode"] = _each_slowdown(subject, order, lambda: _decode_rate(bench, subject.engine, model))
    subject.engine.call("model.unload", Handle(model.handle))
    with subject.stand.opened_device_of(subject.engine) as device:
        staged = subject.engine.call("storage.stage", Stage(device.handle, [source], pinned=True)).handle
        subject.engine.call("storage.upload_staged", UploadStaged(staged, 1))
        values["pinned"] = _each_slowdown(subject, order, lambda: staged_rate(subject.engine, staged, source.nbytes))
        subject.engine.call("storage.drop", Drop([staged]))
    return values


def _loaded_once(bench: Bench, subject: Subject) -> tuple[dict[str, list[float]], ModelLoaded]:
    """What happens once in a process: the load and the first tokens, each dose on the way to the largest."""
    engine = subject.engine
    with subject.stand.opened_device_of(engine):
        pass
    subject.doses.give(Dose(SLOWDOWNS))
    began = time.perf_counter()
    model: ModelLoaded = engine.call(
        "model.load", ModelLoad(str(bench.checkpoint), subject.stand.model_device, "F32"), timeout=300
    )
    values = {"load": _on_the_way(subject, time.perf_counter() - began)}
    for length in (32, LONG_PROMPT):
        values[f"first_token/{length}"] = _on_the_way(subject, timed(engine, model, bench.prompt(length), 1))
    subject.doses.give(Dose())
    return values, model


def _on_the_way(subject: Subject, took: float) -> list[float]:
    return [took - before for before in subject.doses.before_answer()]


def _each_slowdown(subject: Subject, order: random.Random, measure: Callable[[], float]) -> list[float]:
    found = {}
    for slowdown in order.sample(SLOWDOWNS, len(SLOWDOWNS)):
        subject.doses.give(Dose((slowdown,)))
        found[slowdown] = measure()
    subject.doses.give(Dose())
    return [found[slowdown] for slowdown in SLOWDOWNS]


def _decode_rate(bench: Bench, engine: Engine, model: ModelLoaded) -> float:
    few, many = (timed(engine, model, bench.prompt(PROMPT), count) for count in (SHORT, LONG))
    return (LONG - SHORT) / max(many - few, 1e-9)


@contextmanager
def _watched(subject: Subject) -> Iterator[None]:
    """NVML read again and again meanwhile, as in the trial."""
    index, pid = subject.stand.plan.device_index, subject.engine.pid
    watching = peak_of(lambda: process_memory(index, pid) or memory_in_use(index)) if subject.stand.gpu else None
    with watching or nullcontext():
        yield


# --- growth rows ------------------------------------------------------------------------------------------


def collect_grown(bench: Bench, wanted: int, side_by_side: int) -> None:
    """Add processes with series of growth rows until each dose has so many; nothing here is a timing.

    On a GPU whose driver does not tell processes apart they go one after another.
    """
    missing = wanted - fewest_series(read_pool([bench.pool.path]))
    if missing <= 0 or not bench.time_left():
        return
    with session() if bench.plan.gpu else nullcontext():
        abreast = side_by_side if not bench.plan.gpu or _told_apart(bench) else 1
        bench.say(f"{missing} processes with series, {abreast} at a time")
        with ThreadPoolExecutor(abreast) as threads:
            for number, _ in enumerate(threads.map(lambda turn: _grow(bench, turn), range(missing)), start=1):
                bench.say(f"grown {number} of {missing}")


def fewest_series(pool: Pool) -> int:
    """How many series the dose with the fewest has, over all growth rows."""
    return min(len(pool.series(row, leak, accounted=kind)) for row in GROWTH_ROWS for leak, kind in doses_of(row))


def doses_of(row: str) -> list[tuple[int, bool]]:
    """Leaks that a growth row is shown, and whether the account has them; none at first."""
    kinds = (False,) if row in UNACCOUNTED_ROWS else (False, True)
    return [(0, False), *((leak, accounted) for leak in LEAKS for accounted in kinds)]


def _told_apart(bench: Bench) -> bool:
    with subjects(bench, 1, "F-CUDA-020") as [subject], subject.stand.opened_device():
        return bool(process_memory(bench.plan.device_index, subject.engine.pid))


def _grow(bench: Bench, turn: int) -> None:
    if not bench.time_left():
        return
    order = random.Random(f"{bench.seed}/grown/{turn}")  # noqa: S311  reproducible order
    with bench.losing(), subjects(bench, 1, GROWTH_ROWS[-1]) as [subject]:
        for row, series in _SERIES.items():
            for leak, accounted, seen in series(subject, order):
                bench.keep(_line(row, leak, accounted, seen))
                if not bench.time_left():
                    return


def _line(row: str, leak: int, accounted: bool, seen: Growth) -> Grown:
    return grown(row, leak, accounted, seen.warm_up, seen.witness_name, seen.account, seen.witness)


Series = Iterator[tuple[int, bool, Growth]]


def _drawn(row: str, subject: Subject, order: random.Random) -> Iterator[tuple[int, bool]]:
    """No leak first, in a process as fresh as the trial's; then leaks in an order drawn by seed."""
    healthy, *rest = doses_of(row)
    for leak, accounted in [healthy, *order.sample(rest, len(rest))]:
        subject.doses.give(Dose(leak=leak, accounted=accounted))
        yield leak, accounted


def _generations(subject: Subject, order: random.Random) -> Series:
    with subject.stand.opened_device() as device, loaded_model(subject.stand) as model:
        prompt = [each % model.config.vocab_size for each in prompt_ids(_PROMPT)]
        for leak, accounted in _drawn("F-PERF-087", subject, order):
            seen, _ = grown_by_generations(subject.stand, model, prompt, _TOKENS, device.handle)
            yield leak, accounted, seen


def _uploads(subject: Subject, order: random.Random) -> Series:
    with subject.stand.opened_device() as device:
        sent = source_of(subject.stand, _UPLOADED)
        for leak, accounted in _drawn("F-MEM-032", subject, order):
            yield leak, accounted, grown_by_uploads(subject.stand, sent, device.handle)


def _cycles(subject: Subject, order: random.Random) -> Series:
    for leak, accounted in _drawn("F-CUDA-020", subject, order):
        yield leak, accounted, grown_by_cycles(subject.stand)[0]


_SERIES: dict[str, Callable[[Subject, random.Random], Series]] = {
    "F-CUDA-020": _cycles,
    "F-MEM-032": _uploads,
    "F-PERF-087": _generations,
}
