"""`falsify calibrate`: the pool is grown, then replayed, and what came out is written with its page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from conformance.calibration.collecting import LEAKS, SLOWDOWNS, Bench, collect_grown, collect_timed, fewest_series
from conformance.calibration.pool import SCHEMA, PoolFile, Session, read_pool
from conformance.calibration.replaying import replay
from conformance.corpus.geometry import QWEN2_5_1_5B, geometry_checkpoint
from conformance.corpus.models import resolve_model
from conformance.environment import fingerprint
from conformance.manifest import DriverTable, LoadedManifest, load_manifest
from conformance.probes.nvml import gpus
from conformance.record import ModelIdentity
from conformance.revision import revision
from conformance.trial.plan import Plan
from conformance.trial.recorder import now
from conformance.trial.runner import new_run_directory
from reports.calibration import calibration_page

if TYPE_CHECKING:
    from conformance.calibration.results import Calibration

PARTS = ("timed", "grown")
ROWS = ("F-CUDA-020", "F-MEM-032", "F-PERF-081", "F-PERF-087")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to collect: processes in the pool at the end, within so many seconds, of which parts."""

    pool: Path
    processes: int
    seconds: float
    parts: tuple[str, ...] = PARTS
    side_by_side: int = 1
    seed: int = 0
    device_index: int = 0


def collect(request: Request, directory: Path, say: Callable[[str], None]) -> None:
    """Append a session to the pool; `directory` holds what the processes exchange.

    Raises:
        BrokenPool: the pool is of another machine, or cannot be trusted.
        OSError: it cannot be written.
    """
    deadline = time.monotonic() + request.seconds
    file = PoolFile(request.pool)
    file.mend()
    bench = _bench(request, directory, file, deadline, say)
    file.append(_session(request, bench))
    read_pool([request.pool])
    if "timed" in request.parts:
        collect_timed(bench, request.processes)
    if "grown" in request.parts:
        collect_grown(bench, request.processes, request.side_by_side)


def collect_in(out: Path, request: Request, say: Callable[[str], None]) -> None:
    """The same in a new directory under `out`, of which nothing is left but the pool."""
    directory = new_run_directory(out)
    try:
        collect(request, directory, say)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        (out / "latest").unlink(missing_ok=True)


def replay_and_write(
    pools: Sequence[Path], out: Path, name: str, *, replays: int, seed: int, say: Callable[[str], None]
) -> Calibration:
    """Replay the judge over the pools and leave `NAME.json` and `NAME.html` in `out`.

    Raises:
        BrokenPool: a pool cannot be trusted, or has too little to be split in two.
        OSError: the result cannot be written.
    """
    found = replay(read_pool(pools), replays=replays, seed=seed, say=say)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    (out / f"{name}.html").write_text(calibration_page(found), encoding="utf-8")
    return found


def fewest(pool: Path, parts: Sequence[str]) -> int:
    """How many processes the parts of a pool have at least.

    Raises:
        BrokenPool: it cannot be trusted.
        OSError: it cannot be read.
    """
    read = read_pool([pool])
    return min([len(read.timed)] * ("timed" in parts) + [fewest_series(read)] * ("grown" in parts))


def _bench(request: Request, directory: Path, pool: PoolFile, deadline: float, say: Callable[[str], None]) -> Bench:
    gpu = bool(gpus())
    model = resolve_model(None)
    checkpoint = geometry_checkpoint("F32") if gpu else model.directory
    vocabulary = QWEN2_5_1_5B["vocab_size"] if gpu else _vocabulary(model.directory)
    plan = Plan(
        run_dir=str(directory),
        engine="reference",
        model=ModelIdentity(model.name, model.kind, model.sha256),
        model_dir=str(model.directory),
        goldens_dir=None,
        rows=list(ROWS),
        seed=request.seed,
        shuffle=False,
        gpu=gpu,
        is_reference=True,
        reproduce="falsify calibrate",
        device_index=request.device_index,
    )
    return Bench(plan, dosed_manifest(), checkpoint, vocabulary, pool, deadline, request.seed, say)


def dosed_manifest() -> LoadedManifest:
    """The reference engine's manifest with the driver that takes doses."""
    reference = load_manifest("reference")
    driver = DriverTable(command=["{python}", "-m", "conformance.calibration.dosing"], startup_timeout_s=120.0)
    return msgspec.structs.replace(reference, manifest=msgspec.structs.replace(reference.manifest, driver=driver))


def _vocabulary(directory: Path) -> int:
    config: dict[str, int] = msgspec.json.decode((directory / "config.json").read_bytes(), type=dict)
    return config["vocab_size"]


def _session(request: Request, bench: Bench) -> Session:
    return Session(
        schema=SCHEMA,
        started=now(),
        revision=revision().name,
        seed=request.seed,
        gpu=bench.plan.gpu,
        checkpoint="geometry F32" if bench.plan.gpu else f"{bench.plan.model.name} F32",
        slowdowns=SLOWDOWNS,
        leaks=LEAKS,
        environment=fingerprint(gpus()),
    )
