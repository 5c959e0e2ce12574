"""One matrix in a directory of its own, and what its records say of it: time, verdicts, devices, who was disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from conformance.catalogue import load_catalogue
from conformance.matrix.record import MATRIX_FILE, CellResult, MatrixRecord
from conformance.matrix.schedule import Span, busy_s, disturbed, spans, tenants
from conformance.record import Record, read_record


class Run(msgspec.Struct, frozen=True):
    """A matrix that was run: the command's wall time in seconds, its record, and the records of its cells."""

    wall_s: float
    exit_code: int
    matrix: MatrixRecord
    records: list[Record]


def write_table(path: Path, table: Mapping[str, Any]) -> Path:
    """A matrix file."""
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()), encoding="utf-8")
    return path


def run_matrix(file: Path, out: Path, *words: str, env: Mapping[str, str] | None = None, timeout: float = 600) -> Run:
    """Run `falsify matrix` with these options.

    Raises:
        subprocess.TimeoutExpired: it took longer.
        OSError: it left no record.
    """
    command = [sys.executable, "-m", "conformance", "matrix", str(file), "--out", str(out), *words]
    began = time.monotonic()
    with subprocess.Popen(command, env=os.environ | dict(env or {}), stdout=sys.stderr) as process:
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise
    seconds = time.monotonic() - began
    matrix = msgspec.json.decode((out / MATRIX_FILE).read_bytes(), type=MatrixRecord)
    records = [read_record(out / cell.record) for cell in matrix.cells if cell.record]
    return Run(round(seconds, 1), code, matrix, records)


def told_of(cell: CellResult) -> dict[str, str]:
    """Every row's verdict, with the rehearsal's."""
    return {row: f"{verdict} {cell.rehearsed.get(row, '')}".strip() for row, verdict in cell.verdicts.items()}


def differing(runs: Sequence[Run]) -> list[str]:
    """What one run says of a row of a cell and another does not; empty where all say the same."""
    found = []
    for one, other in pairwise(runs):
        for here, there in zip(one.matrix.cells, other.matrix.cells, strict=True):
            said, says = told_of(here), told_of(there)
            found += [
                f"{here.name} {row}: {said.get(row, 'absent')}, then {says.get(row, 'absent')}"
                for row in sorted({*said, *says})
                if said.get(row) != says.get(row)
            ]
    return found


def described(run: Run) -> dict[str, Any]:
    """A run as its result shows it; seconds of rows are those of `began_s` and `duration_s` of the records."""
    placed = spans(run.records, load_catalogue())
    untimed = [span for span in placed if not span.alone]
    return {
        "wall_s": run.wall_s,
        "rows_s": round(busy_s(placed), 1),
        "untimed_rows_s": round(busy_s(untimed), 1),
        "exit_code": run.exit_code,
        "cells": [_cell(cell, run.records) for cell in run.matrix.cells],
        "disturbed": [
            f"{timed.row} of {timed.trial}: {other.row} of {other.trial}" for timed, other in disturbed(placed)
        ],
        "tenants": [f"{one.row} of {one.trial}: {other.row} of {other.trial}" for one, other in tenants(placed)],
        "most_rows_at_one_time": most_at_one_time(placed),
    }


def most_at_one_time(placed: Sequence[Span]) -> int:
    """How many rows ran at one time at most."""
    return max((sum(each.began_s <= span.began_s < each.ended_s for each in placed) for span in placed), default=0)


def _cell(cell: CellResult, records: Sequence[Record]) -> dict[str, Any]:
    mine = [record for record in records if record.header.trial_id == Path(cell.record).parent.name]
    tried = [row for record in mine for row in record.rows if row.began_s > 0]
    return {
        "name": cell.name,
        "exit_code": int(cell.exit_code),
        "cause": cell.cause,
        "record_sha256": cell.record_sha256,
        "rows_tried": len(tried),
        "verdicts": dict(Counter(told_of(cell)[row.id] for row in tried)),
        "devices": sorted({row.device for row in tried}),
        "device_names": sorted({gpu["name"] for record in mine for gpu in record.header.environment["gpus"]}),
    }
