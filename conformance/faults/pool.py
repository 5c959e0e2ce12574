"""Runs trials of faults as processes, some at a time, each under a limit of its own.

Each is forked from a process that has imported the harness and nothing of the engine. On a CPU the engine's processes
come from a nursery, which has imported the engine and run nothing of it; where there is a GPU, and where rows measure
the process itself, they are started anew. A trial's directory is gone when it has ended.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path

import msgspec

from conformance.catalogue import load_catalogue
from conformance.corpus.models import ModelUnderTrial, resolve_model
from conformance.faults.ledger import HEALTHY
from conformance.faults.nursery import can_be_nursed, nursery
from conformance.faults.planting import Fault
from conformance.faults.trying import Tried, told_by, try_fault
from conformance.probes.nvml import gpus
from conformance.record import ModelIdentity
from conformance.trial.inventory import inventory
from conformance.trial.plan import DEFAULT_PEER, Plan
from conformance.verdicts import Rehearsed, Verdict


class Task(msgspec.Struct, frozen=True):
    """One trial: a fault (empty: the healthy engine) against rows."""

    fault: str
    rows: list[str]
    alone: bool = False
    smoked: bool = True


@dataclass(frozen=True)
class Bench:
    """What all trials share: the faults by name, their file outside the project, where to run, and the limits."""

    faults: dict[str, Fault]
    module: Path | None
    out: Path
    workers: int
    say: Callable[[str], None]
    limit_s: float = 600.0


class Trials:
    """Runs tasks, `workers` at a time; those that must be alone come last, one by one."""

    def __init__(self, bench: Bench, model: ModelUnderTrial | None = None) -> None:
        self._bench = bench
        self._fork = multiprocessing.get_context("fork")
        self._model = model or resolve_model(None)
        self._nursed: Path | None = None
        for place in inventory(load_catalogue()).values():
            __import__(f"checks.{Path(place.file).stem}")

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Tried]]:
        """Each task with what it showed, in the order they end."""
        together = [task for task in tasks if not task.alone]
        alone = [task for task in tasks if task.alone]
        with self._nursery(tasks):
            yield from self._run(together, self._bench.workers, len(tasks), 0)
            yield from self._run(alone, 1, len(tasks), len(together))

    @contextmanager
    def _nursery(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Have a nursery while these run, if any of them has a use for it."""
        if gpus() or not any(can_be_nursed(self._bench.faults.get(task.fault)) for task in tasks):
            yield
            return
        with tempfile.TemporaryDirectory() as directory, nursery(Path(directory)) as self._nursed:
            yield
        self._nursed = None

    def _run(self, tasks: Sequence[Task], workers: int, count: int, done: int) -> Iterator[tuple[Task, Tried]]:
        waiting = list(enumerate(tasks, done))
        running: dict[int, tuple[Task, Path, ForkProcess, float]] = {}
        while waiting or running:
            while waiting and len(running) < workers:
                number, task = waiting.pop(0)
                directory = self._bench.out / f"{os.getpid()}-{number:03d}-{task.fault or HEALTHY}"
                process = self._fork.Process(target=self._try, args=(task, directory))
                process.start()
                running[process.sentinel] = (task, directory, process, time.monotonic() + self._bench.limit_s)
            ended = set(wait(list(running), 1.0))
            for sentinel, (task, directory, process, deadline) in list(running.items()):
                if sentinel not in ended and time.monotonic() < deadline:
                    continue
                if sentinel not in ended:
                    process.kill()
                process.join()
                del running[sentinel]
                done += 1
                tried = _result_in(directory, task, self._bench.limit_s)
                shutil.rmtree(directory, ignore_errors=True)
                self._bench.say(f"[{done}/{count}] {task.fault or HEALTHY}: {_told(tried)}")
                yield task, tried

    def _try(self, task: Task, directory: Path) -> None:
        """In the forked process: one trial, whose result is left as a file."""
        directory.mkdir(parents=True)
        planted = self._bench.faults.get(task.fault)
        smoked = task.smoked and (planted is None or planted.edit is None)
        try:
            plan = _plan(directory, self._model, task.rows)
            tried = try_fault(planted, self._bench.module, plan, task.rows, smoked=smoked, nursery=self._nursed)
            (directory / "tried.json").write_bytes(msgspec.json.encode(tried))
        except Exception:  # noqa: BLE001  the matrix goes on without it, and says why
            (directory / "lost.txt").write_text(traceback.format_exc(), encoding="utf-8")


def _plan(directory: Path, model: ModelUnderTrial, rows: list[str]) -> Plan:
    return Plan(
        run_dir=str(directory),
        engine="reference",
        model=ModelIdentity(model.name, model.kind, model.sha256, model.nbytes),
        model_dir=str(model.directory),
        goldens_dir=str(model.goldens_directory) if model.goldens_directory else None,
        rows=rows,
        seed=0,
        shuffle=False,
        gpu=bool(gpus()),
        is_reference=True,
        reproduce="falsify severity",
        # A fault that slows is held against the engine without it; no peer need be installed.
        peer="reference" if gpus() else DEFAULT_PEER,
    )


def _result_in(directory: Path, task: Task, limit_s: float) -> Tried:
    """What a trial left; one that was cut off counts for the rows it had finished."""
    path = directory / "tried.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Tried)
    lost = directory / "lost.txt"
    cause = lost.read_text(encoding="utf-8").strip() if lost.exists() else f"no result within {limit_s:g} s"
    return told_by(directory, task.rows, cause)


def _told(tried: Tried) -> str:
    hit = [row.id for row in tried.rows if row.verdict is Verdict.FALSIFIED or row.rehearsed is Rehearsed.FAILED]
    lost = f", LOST {len(tried.lost)} rows: {tried.cause.splitlines()[-1]}" if tried.lost else ""
    return f"{tried.seconds:.1f} s, falsified: {', '.join(hit) or 'none'}{lost}"
