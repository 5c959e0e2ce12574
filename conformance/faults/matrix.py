"""Runs the kill matrix: every fault against the rows that should see it and a sample of the others, in parallel.

Each trial is a process forked from one that has imported the harness and nothing of the engine; the engine's own
processes are started anew, never forked.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path

import msgspec

from conformance.catalogue import load_catalogue
from conformance.corpus.models import ModelUnderTrial, resolve_model
from conformance.faults.planting import Fault
from conformance.faults.specificity import Outcome, judge_fault
from conformance.faults.trying import Tried, try_fault
from conformance.probes.nvml import gpus
from conformance.record import ModelIdentity, RowResult
from conformance.trial.inventory import inventory
from conformance.trial.plan import Plan
from conformance.verdicts import Rehearsed, Verdict

SAMPLE = ("F-MEM-024", "F-PARSE-037", "F-DTYPE-047", "F-CUDA-014", "F-QUAL-069")
TRIAL_S = 600.0
CONTROL = "healthy"


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """A finished matrix: the outcome of each fault, and the healthy engine's verdict on every row tried."""

    machine: str
    revision: str
    full: bool
    seconds: float
    healthy: dict[str, str]
    false_alarms: list[str]
    faults: list[Outcome]


class Task(msgspec.Struct, frozen=True):
    """One trial: a fault (empty: the healthy control) against rows."""

    fault: str
    rows: list[str]
    alone: bool = False


class TrialLost(Exception):
    """A trial that left no result: it ran out of time, or its process died."""

    def __init__(self, task: Task, cause: str) -> None:
        self.task, self.cause = task, cause
        super().__init__(f"{task.fault or CONTROL}: {cause}")


def rows_for(planted: Fault, *, full: bool) -> list[str]:
    """The rows a fault is tried against: those that should see it, then the sample, or all."""
    catalogue = load_catalogue()
    written = inventory(catalogue)
    others = [row.id for row in catalogue.rows if row.id in written] if full else list(SAMPLE)
    return list(dict.fromkeys([*(row for row in planted.expects if row in written), *others]))


def run_matrix(
    faults: Sequence[Fault],
    out: Path,
    *,
    module: Path | None,
    full: bool,
    workers: int,
    say: Callable[[str], None],
    revision: str,
) -> Matrix:
    """Try every fault, and the healthy engine on every row that any of them needs."""
    began = time.monotonic()
    by_name = {planted.name: planted for planted in faults}
    trials = Trials(by_name, module, out.resolve(), workers, say)
    wanted = {planted.name: rows_for(planted, full=full) for planted in faults}
    controls = _controls({row for rows in wanted.values() for row in rows})
    tasks = controls + [Task(name, rows, _alone(rows)) for name, rows in wanted.items()]
    results = trials.run(tasks)
    healthy = {
        result.id: result for task, tried in results if not task.fault and isinstance(tried, Tried)
        for result in tried.rows
    }  # fmt: skip
    outcomes = [_outcome(by_name[task.fault], task, tried, healthy) for task, tried in results if task.fault]
    return Matrix(
        machine="gpu" if gpus() else "cpu",
        revision=revision,
        full=full,
        seconds=round(time.monotonic() - began, 1),
        healthy={row: _shown(result) for row, result in sorted(healthy.items())},
        false_alarms=[row for row, result in healthy.items() if _alarmed(result)],
        faults=sorted(outcomes, key=lambda outcome: (outcome.area, outcome.fault)),
    )


def _shown(result: RowResult) -> str:
    return f"{result.verdict}, rehearsed: {result.rehearsed}" if result.rehearsed else result.verdict.value


def _alarmed(result: RowResult) -> bool:
    return result.verdict in {Verdict.FALSIFIED, Verdict.ERROR} or result.rehearsed is Rehearsed.FAILED


def _alone(rows: Iterable[str]) -> bool:
    """Whether rows measure time on a GPU, or take all of its memory."""
    return bool(gpus()) and any(load_catalogue().row(row).alone for row in rows)


def _controls(rows: set[str]) -> list[Task]:
    """The healthy engine on these rows, a task a section; those that run alone apart."""
    catalogue = load_catalogue()
    tasks: dict[tuple[str, bool], list[str]] = {}
    for row in catalogue.rows:
        if row.id in rows:
            tasks.setdefault((row.section, bool(gpus()) and row.alone), []).append(row.id)
    return [Task("", found, alone) for (_, alone), found in tasks.items()]


def _outcome(planted: Fault, task: Task, tried: Tried | TrialLost, healthy: dict[str, RowResult]) -> Outcome:
    if isinstance(tried, Tried) and all(row in healthy for row in task.rows):
        return judge_fault(planted, tried, healthy, load_catalogue())
    cause = str(tried) if isinstance(tried, TrialLost) else "no healthy control"
    lost = [RowResult(row, Verdict.ERROR, reason=cause) for row in task.rows]
    return judge_fault(planted, Tried(lost, [], "", 0.0), {row.id: row for row in lost}, load_catalogue())


class Trials:
    """Runs tasks as forked processes, `workers` at a time; those that must be alone come last, one by one."""

    def __init__(
        self, faults: dict[str, Fault], module: Path | None, out: Path, workers: int, say: Callable[[str], None]
    ) -> None:
        self._faults = faults
        self._module = module
        self._out = out
        self._workers = workers
        self._say = say
        self._fork = multiprocessing.get_context("fork")
        self._model = resolve_model(None)
        for place in inventory(load_catalogue()).values():
            __import__(f"checks.{Path(place.file).stem}")

    def run(self, tasks: Sequence[Task]) -> list[tuple[Task, Tried | TrialLost]]:
        """The result of every task, in the order they end."""
        together = [task for task in tasks if not task.alone]
        found = list(self._run(together, self._workers, len(tasks), 0))
        found += self._run([task for task in tasks if task.alone], 1, len(tasks), len(found))
        return found

    def _run(
        self, tasks: Sequence[Task], workers: int, count: int, done: int
    ) -> Iterable[tuple[Task, Tried | TrialLost]]:
        waiting = list(enumerate(tasks, done))
        running: dict[int, tuple[Task, Path, ForkProcess, float]] = {}
        while waiting or running:
            while waiting and len(running) < workers:
                number, task = waiting.pop(0)
                directory = self._out / f"{number:03d}-{task.fault or CONTROL}"
                process = self._fork.Process(target=self._try, args=(task, directory))
                process.start()
                running[process.sentinel] = (task, directory, process, time.monotonic() + TRIAL_S)
            ended = set(wait(list(running), 1.0))
            for sentinel, (task, directory, process, deadline) in list(running.items()):
                if sentinel not in ended and time.monotonic() < deadline:
                    continue
                if sentinel not in ended:
                    process.kill()
                process.join()
                del running[sentinel]
                done += 1
                result = _result_in(directory, task)
                self._say(f"[{done}/{count}] {task.fault or CONTROL}: {_told(result)}")
                yield task, result

    def _try(self, task: Task, directory: Path) -> None:
        """In the forked process: one trial, whose result is left as a file."""
        directory.mkdir(parents=True)
        planted = self._faults.get(task.fault)
        try:
            plan = _plan(directory, self._model, task.rows)
            tried = try_fault(planted, self._module, plan, task.rows, smoked=planted is None or planted.edit is None)
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
    )


def _result_in(directory: Path, task: Task) -> Tried | TrialLost:
    path = directory / "tried.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Tried)
    lost = directory / "lost.txt"
    cause = lost.read_text(encoding="utf-8").strip() if lost.exists() else f"no result within {TRIAL_S:g} s"
    return TrialLost(task, cause)


def _told(result: Tried | TrialLost) -> str:
    if isinstance(result, TrialLost):
        return f"LOST {result.cause.splitlines()[-1]}"
    hit = [row.id for row in result.rows if row.verdict is Verdict.FALSIFIED or row.rehearsed is Rehearsed.FAILED]
    return f"{result.seconds:.1f} s, falsified: {', '.join(hit) or 'none'}"
