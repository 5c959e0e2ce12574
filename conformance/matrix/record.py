"""The record of a matrix: one line of JSON a cell, with every row's verdict and the hash of the cell's own record."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from conformance.matrix.cells import Cell, Matrix
from conformance.matrix.state import CellDirectory
from conformance.verdicts import ExitCode, Rehearsed, Verdict

MATRIX_FILE = "matrix.json"
NOT_THERE = "no whole record"
WORST_FIRST = (ExitCode.FALSIFIED, ExitCode.HARNESS, ExitCode.UNDECIDED)


class CellResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a cell. `exit_code` is 4 and `cause` says why where it has no whole record."""

    name: str
    engine: str
    model: str
    device: str
    exit_code: ExitCode
    cause: str = ""
    record: str = ""
    record_sha256: str = ""
    inputs_sha256: str = ""
    engine_version: str = ""
    rehearsal: bool = False
    thresholds_sha256: str = ""
    catalogue_sha256: str = ""
    verdicts: dict[str, Verdict] = {}
    rehearsed: dict[str, Rehearsed] = {}


class MatrixRecord(msgspec.Struct, frozen=True):
    """All cells in the matrix's order, and what they amount to."""

    matrix_sha256: str
    rows: list[str]
    cells: list[CellResult]
    exit_code: ExitCode


def collect(matrix: Matrix, out: Path, causes: dict[str, str] | None = None) -> MatrixRecord:
    """Read what the cells left; one without a whole record is told as that, never left out."""
    results = [_result(CellDirectory(out, cell), (causes or {}).get(cell.name, "")) for cell in matrix.cells]
    rows = list(dict.fromkeys(row for result in results for row in result.verdicts))
    return MatrixRecord(matrix.sha256, rows, results, worst(result.exit_code for result in results))


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The exit code of several trials; of none, undecided."""
    present = set(codes)
    bad = next((code for code in WORST_FIRST if code in present), None)
    return bad if bad is not None else ExitCode.OPEN if present else ExitCode.UNDECIDED


def write_matrix(record: MatrixRecord, out: Path) -> Path:
    """Write the record, all or nothing; its path."""
    path = out / MATRIX_FILE
    whole = out / f".{MATRIX_FILE}"
    whole.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    return whole.replace(path)


def _result(place: CellDirectory, cause: str) -> CellResult:
    cell: Cell = place.cell
    settled = None if cause else place.done()
    if settled is None or settled.record.footer is None:
        return CellResult(cell.name, cell.engine, cell.model, cell.device, ExitCode.HARNESS, cause=cause or NOT_THERE)
    header, rows = settled.record.header, settled.record.rows
    return CellResult(
        name=cell.name,
        engine=header.engine.name,
        model=header.model.name,
        device=cell.device,
        exit_code=settled.record.footer.exit_code,
        record=settled.file.relative_to(place.path.parents[1]).as_posix(),
        record_sha256=settled.note.record_sha256,
        inputs_sha256=settled.note.inputs_sha256,
        engine_version=header.engine.version,
        rehearsal=header.rehearsal,
        thresholds_sha256=header.thresholds_sha256,
        catalogue_sha256=header.catalogue_sha256,
        verdicts={row.id: row.verdict for row in rows},
        rehearsed={row.id: row.rehearsed for row in rows if row.rehearsed},
    )
