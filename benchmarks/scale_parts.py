"""The parts of the scale benchmark; each runs in a process of its own and returns what it measured."""

from __future__ import annotations

import cProfile
import io
import json
import os
import pstats
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from matrix_runs import described, differing, run_matrix, write_table
from rich.console import Console
from simulated_devices import devices

from conformance.catalogue import load_catalogue
from conformance.judge import Situation, judge
from conformance.manifest import load_manifest
from conformance.matrix.cells import Cell, load_matrix
from conformance.matrix.devices import Place
from conformance.matrix.pool import Pool
from conformance.matrix.progress import Tally
from conformance.matrix.record import collect, write_matrix
from conformance.matrix.state import CellDirectory
from conformance.matrix.trial import CellDone, Planned, Request, RowDone
from conformance.protocol.client import Engine
from conformance.protocol.messages import Ping
from conformance.record import Record, RowResult, encode_line, read_record
from conformance.thresholds import load_thresholds
from conformance.trial.launching import launch_in
from conformance.trial.recorder import Recorder
from reports.index import INDEX
from reports.matrix import render_matrix
from reports.matrix_progress import MatrixProgress
from reports.written import write_reports

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "docs" / "results" / "rehearsal" / "record.jsonl"
ENGINES = ["reference", "safetensors-mmap", "safetensors-pread", str(ROOT / "docs" / "examples" / "minimal.toml")]
MODELS = ["fixture", "random"]
ROWS = ["F-PARSE-03", "F-DTYPE-04", "F-QUAL-06", "F-ERR-094", "F-PERF-085"]
SIZES = (100, 1_000, 10_000)
MOST_SECONDS, MOST_BYTES = 10.0, 1 << 30
CALLS = 500
TOP = 10


class Nobody:
    """Hears of rows and does nothing."""

    def row_started(self, row_id: str) -> None:
        """Nothing."""

    def row_finished(self, result: RowResult) -> None:
        """Nothing."""


def rehearsal(directory: Path) -> dict[str, Any]:
    """Four engines, two models, one cell at a time and two."""
    table = {"engines": ENGINES, "models": MODELS, "rows": ROWS, "rehearse": True}
    file = write_table(directory / "matrix.toml", table)
    runs = {}
    for places in (2, 1):
        runs[places] = run_matrix(file, directory / f"places-{places}", "-n", "1", "--places", str(places), timeout=900)
    return {
        "engines": [Path(name).stem for name in ENGINES],
        "models": MODELS,
        "rows": ROWS,
        "workers": {str(places): described(run) for places, run in sorted(runs.items())},
        "speed_up": round(runs[1].wall_s / runs[2].wall_s, 2),
        "differing": differing([runs[1], runs[2]]),
        "load_average": os.getloadavg(),
    }


def cost(directory: Path) -> dict[str, Any]:
    """Processor milliseconds of the harness: a call of the protocol, a row's judging and record, a trial's reports."""
    record = read_record(STORED)
    rows, catalogue, thresholds = record.rows, load_catalogue(), load_thresholds()
    situation = Situation(gpu=False, is_reference=True)
    exchange = directory / "exchange"
    with Engine(launch_in(load_manifest(ENGINES[3]), exchange)) as engine:
        _ = engine.info
        calls = _milliseconds(lambda: [engine.call("ping", Ping()) for _ in range(CALLS)]) / CALLS
    judging = _milliseconds(
        lambda: [judge(catalogue.row(row.id), row.observations, thresholds, situation) for row in rows]
    )
    encoding = _milliseconds(lambda: [encode_line(row) for row in rows])
    recording = _milliseconds(lambda: _written(directory / "recorded", record))
    reading = _milliseconds(lambda: read_record(STORED))
    write_reports(record, directory)
    reports = _milliseconds(lambda: write_reports(record, directory))
    return {
        "protocol_call_ms": round(calls, 4),
        "judge_row_ms": round(judging / len(rows), 4),
        "encode_row_ms": round(encoding / len(rows), 4),
        "record_row_ms": round(recording / len(rows), 4),
        "read_row_ms": round(reading / len(rows), 4),
        "reports_trial_ms": round(reports, 1),
        "record_bytes": STORED.stat().st_size,
        "trial_of_one_row": _one_row(directory),
    }


def growth(directory: Path) -> dict[str, Any]:
    """Matrices of simulated trials: each writes a record of 100 rows and says so; nothing is inferred."""
    sizes = [_grown(directory / str(size), size) for size in SIZES]
    profiler = cProfile.Profile()
    profiler.enable()
    _grown(directory / "profiled", SIZES[1])
    profiler.disable()
    return {"sizes": sizes, "profile_of": SIZES[1], "profile": _dominating(profiler)}


def records(directory: Path) -> dict[str, Any]:
    """Ten thousand records, each as large as a real one: indexed, then summarised, compared and searched."""
    lines = STORED.read_bytes().split(b"\n", 1)
    header = json.loads(lines[0])
    engine = header["engine"]
    for number in range(SIZES[-1]):
        named = engine | {"name": f"engine {number % 50}"}
        place = directory / f"{number % 100:02}" / f"{number:05}"
        place.mkdir(parents=True)
        head = json.dumps(header | {"trial_id": place.name, "engine": named}).encode()
        (place / "record.jsonl").write_bytes(head + b"\n" + lines[1])
    questions = {"index": [], "summary": [], "compare": ["--by", "engine"], "search": ["--search", "no NVIDIA device"]}
    told = {name: _asked_of_records(directory, words) for name, words in questions.items()}
    kept = all(
        each["wall_s"] <= MOST_SECONDS and each["peak_bytes"] <= MOST_BYTES and each["exit_code"] == 0
        for each in told.values()
    )
    return {
        "records": SIZES[-1],
        "record_bytes": STORED.stat().st_size,
        "index_bytes": (directory / INDEX).stat().st_size,
        "limits": {"wall_s": MOST_SECONDS, "peak_bytes": MOST_BYTES},
        "verdict": "kept" if kept else "missed",
        **told,
    }


def _milliseconds(action: Callable[[], object]) -> float:
    """Processor time of this process, the least of five: what else runs on the machine counts little."""
    times = []
    for _ in range(5):
        began = time.process_time()
        action()
        times.append(time.process_time() - began)
    return min(times) * 1000


def _written(directory: Path, record: Record) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    with Recorder(directory, record.header, Nobody()) as recorder:
        for row in record.rows:
            recorder.record(row)


def _one_row(directory: Path) -> dict[str, float]:
    """What a trial costs besides its rows: one row that does nearly nothing."""
    words = [sys.executable, "-m", "conformance", "run", "-k", "F-PERF-083", "-n", "1", "--out", str(directory / "one")]
    with _children() as used:
        subprocess.run(words, check=False, stdout=subprocess.DEVNULL, timeout=300)
    return used


@contextmanager
def _children() -> Iterator[dict[str, float]]:
    """Wall and processor seconds of the processes that are started and end in the block."""
    used: dict[str, float] = {}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    yield used
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    used |= {"wall_s": round(time.monotonic() - began, 2), "cpu_s": round(spent, 2)}


def _asked_of_records(directory: Path, words: list[str]) -> dict[str, Any]:
    """One question in a process of its own, started by another so that its peak of memory is its own."""
    command = [sys.executable, "-m", "conformance", "records", str(directory), *words]
    script = (
        "import json, resource, subprocess, sys, time; began = time.monotonic();"
        "code = subprocess.run(json.loads(sys.argv[1]), stdout=subprocess.DEVNULL).returncode;"
        "wall = time.monotonic() - began; used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "cpu = round(used.ru_utime + used.ru_stime, 2); peak = used.ru_maxrss * 1024;"
        "print(json.dumps({'exit_code': code, 'wall_s': round(wall, 2), 'cpu_s': cpu, 'peak_bytes': peak}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(command)], capture_output=True, text=True, check=True, timeout=1800
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


class SimulatedPool(Pool):
    """Cells that take no time: each leaves the record of a trial that says nothing of any engine."""

    def __init__(self, out: Path, matrix_rows: list[str], hear: Callable[..., None]) -> None:
        places = [Place(f"simulated {number}", {}) for number in range(2)]
        super().__init__(places, _no_request, hear)
        self._out, self._rows = out, matrix_rows
        record = read_record(STORED)
        self._record = msgspec.structs.replace(record, rows=[_bare(row) for row in record.rows])

    def run(self, cells: Sequence[Cell]) -> None:
        """All cells in this thread, where a profiler sees them."""
        self._work(self._places[0], list(cells))

    def _try(self, cell: Cell, place: Place) -> CellDone:
        del place
        where = CellDirectory(self._out, cell)
        run = where.path / "run"
        run.mkdir(parents=True)
        self._hear(cell, Planned(self._rows))
        with where.locked(), Recorder(run, self._record.header, Nobody()) as recorder:
            for row in self._record.rows:
                recorder.record(row)
                self._hear(cell, RowDone(row.id, row.verdict, row.duration_s))
            footer = recorder.finish("completed", _bare).footer
            where.settle("0" * 64, run)
        return CellDone(int(footer.exit_code) if footer else 4)


def _no_request(cell: Cell) -> Request:
    raise LookupError(cell.name)


def _bare(row: RowResult) -> RowResult:
    return msgspec.structs.replace(row, observations=[], findings=[], evidence=[])


def _grown(directory: Path, size: int) -> dict[str, Any]:
    directory.mkdir()
    engines = [f"engine-{number}" for number in range(size)]
    steps: dict[str, float] = {}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        began = time.process_time()
        value = action()
        steps[name] = round(time.process_time() - began, 3)
        return value

    matrix = timed("load", lambda: load_matrix(write_table(directory / "m.toml", {"engines": engines})))
    rows = [row.id for row in load_catalogue().rows]
    console = Console(file=io.StringIO(), width=120)
    with MatrixProgress(Tally(matrix.cells, 2), console) as progress:
        pool = SimulatedPool(directory, rows, progress.hear)
        timed("cells", lambda: pool.run(matrix.cells))
    record = timed("collect", lambda: collect(matrix, directory))
    page = timed("page", lambda: render_matrix(record, load_catalogue()))
    path = timed("write", lambda: write_matrix(record, directory))
    return {
        "cells": size,
        "cpu_s": steps,
        "cpu_ms_a_cell": round(sum(steps.values()) * 1000 / size, 3),
        "page_bytes": len(page.encode()),
        "matrix_json_bytes": path.stat().st_size,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _dominating(profiler: cProfile.Profile) -> list[dict[str, Any]]:
    """The functions in which most time is spent, themselves."""
    stats = pstats.Stats(profiler, stream=io.StringIO())
    table: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = stats.stats  # type: ignore[attr-defined]
    whole = sum(entry[2] for entry in table.values())
    ranked = sorted(table.items(), key=lambda item: -item[1][2])[:TOP]
    return [
        {"function": f"{Path(file).name}:{name}", "calls": entry[1], "share": round(entry[2] / whole, 3)}
        for (file, _, name), entry in ranked
    ]


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "cost": cost, "growth": growth, "records": records, "rehearsal": rehearsal, "devices": devices,
}  # fmt: skip
