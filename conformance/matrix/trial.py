"""One cell's trial in a process of its own: `python -m conformance.matrix.trial`, which tells each row as it ends."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from conformance.matrix.cells import Cell, MatrixTable
from conformance.matrix.state import CellBusy, CellDirectory, settles
from conformance.protocol.guard import end_with_parent
from conformance.record import Record, RowResult
from conformance.trial.runner import Options, placed, plan_trial, run_trial
from conformance.trial.signals import stoppable
from conformance.verdicts import ExitCode, Verdict
from reports.written import write_reports


class Request(msgspec.Struct, frozen=True):
    """What the process is asked to do; it waits `patience_s` seconds for another that has the cell."""

    cell: Cell
    table: MatrixTable
    out: str
    workers: int
    again: bool = False
    patience_s: float = 0.0


class Planned(msgspec.Struct, frozen=True, tag_field="event", tag="planned"):
    """Rows are about to be tried."""

    rows: list[str]


class RowDone(msgspec.Struct, frozen=True, tag_field="event", tag="row"):
    """A row has its verdict."""

    id: str
    verdict: Verdict
    duration_s: float


class CellDone(msgspec.Struct, frozen=True, tag_field="event", tag="cell"):
    """The cell is over: by a new trial, or because an earlier one with the same inputs settled it (`reused`)."""

    exit_code: int
    reused: bool = False
    cause: str = ""


Event = Planned | RowDone | CellDone


def options_of(request: Request) -> Options:
    """The trial that a cell is."""
    cell, table = request.cell, request.table
    return Options(
        engine=cell.engine,
        model=cell.model,
        words=table.rows,
        sections=table.sections,
        seed=table.seed,
        profile=table.profile,
        out=CellDirectory(Path(request.out), cell).path,
        workers=request.workers,
        command=("falsify", "matrix", cell.name),
    )


def try_cell(request: Request) -> int:
    """Try the cell, or find it done; the exit code of its trial.

    Raises:
        CellBusy: another process works on it.
        And what `plan_trial`, `placed` and `run_trial` raise.
    """
    place = CellDirectory(Path(request.out), request.cell)
    with place.locked(request.patience_s), stoppable() as stop:
        ready = plan_trial(options_of(request))
        settled = None if request.again else place.done(ready.inputs_sha256)
        if settled is not None:
            code = exit_code_of(settled.record)
            tell(CellDone(code, reused=True))
            return code
        ready = placed(ready, place.path)
        tell(Planned(ready.plan.rows))
        trial = run_trial(ready, request.workers, _Teller(), stop)
        write_reports(trial.record, trial.directory)
        if settles(trial.record):
            place.settle(ready.inputs_sha256, trial.directory)
    code = exit_code_of(trial.record)
    tell(CellDone(code))
    return code


def exit_code_of(record: Record) -> int:
    """The trial's exit code; a truncated record is the harness's failure."""
    return int(record.footer.exit_code if record.footer else ExitCode.HARNESS)


def tell(event: Event) -> None:
    """One line; a reader who has gone away changes nothing about the trial."""
    with suppress(OSError):
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()


class _Teller:
    def row_started(self, row_id: str) -> None:
        """Nothing: what counts is what is over."""

    def row_finished(self, result: RowResult) -> None:
        """Tell it."""
        tell(RowDone(result.id, result.verdict, result.duration_s))


def answer(request: Request) -> int:
    """Try the cell; whatever kept it from being tried is told by name, with exit code 4."""
    try:
        return try_cell(request)
    except CellBusy as error:
        cause = str(error)
    except Exception as error:  # noqa: BLE001  one cell's misfortune must not become another's
        cause = f"{type(error).__name__}: {error}"
    tell(CellDone(int(ExitCode.HARNESS), cause=cause))
    return int(ExitCode.HARNESS)


if __name__ == "__main__":
    end_with_parent()
    sys.exit(answer(msgspec.json.decode(sys.stdin.buffer.read(), type=Request)))
