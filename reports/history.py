"""The last trials of a directory, row by row: as text, as dots beside each row, and as a table for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.comparison import standing
from conformance.machine import machine_hash
from conformance.record import Header, Record, RowResult, read_record
from conformance.verdicts import Rehearsed, Verdict
from reports.summary import GLYPH
from reports.text import one_line

if TYPE_CHECKING:
    import pandas as pd

MAX_DOTS = 12
_REHEARSED_GLYPH = {Rehearsed.SURVIVED: "r", Rehearsed.FAILED: "R"}


class ParquetMissing(Exception):
    """Parquet was asked for without the library that writes it."""

    def __init__(self) -> None:
        super().__init__("this needs pyarrow: pip install 'falsify-inference[parquet]'")


def read_history(directory: Path, *, before: Record | None = None) -> tuple[Record, ...]:
    """The records under a directory, oldest first; `latest` links are not followed.

    With `before` only those of the same engine that began earlier: another engine's past is not this one's.

    Raises:
        BrokenRecord: one of them cannot be read; a history with holes would look like a better one.
        OSError: the directory cannot be read.
    """
    if not directory.is_dir():
        raise NotADirectoryError(20, "not a directory", str(directory))
    files = [path for path in sorted(directory.rglob("record*.jsonl")) if not _linked(path, directory)]
    records = [read_record(path) for path in files]
    if before is not None:
        head = before.header
        records = [r for r in records if r.header.trial_id != head.trial_id and r.header.started <= head.started]
        records = [r for r in records if r.header.engine.name == head.engine.name]
    return tuple(sorted(records, key=lambda record: (record.header.started, record.header.trial_id)))


def _linked(path: Path, root: Path) -> bool:
    return any(part.is_symlink() for part in (path, *path.parents) if part != root and part.is_relative_to(root))


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """One line a trial and row, oldest trial first."""
    import pandas as pd  # noqa: PLC0415  a second, and only the tables need it

    return pd.DataFrame([_line(record, row) for record in records for row in record.rows])


def told_of(header: Header) -> dict[str, str | bool]:
    """What a table says of a trial: which, when, of what, on what."""
    return {
        "trial": header.trial_id,
        "started": header.started,
        "engine": header.engine.name,
        "version": header.engine.version,
        "model": header.model.name,
        "revision": header.revision,
        "machine": machine_hash(header.environment),
        "rehearsal": header.rehearsal,
    }


def _line(record: Record, row: RowResult) -> dict[str, object]:
    return {
        **told_of(record.header),
        "row": row.id,
        "verdict": row.verdict.value,
        "rehearsed": row.rehearsed.value if row.rehearsed else "",
        "reason": one_line(row.reason, 500),
        "duration_s": row.duration_s,
    }


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write the table as Parquet.

    Raises:
        ParquetMissing: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise ParquetMissing
    table.to_parquet(path, index=False)


def glyph(row: RowResult | None) -> str:
    """One character for a row of a trial; a row that the trial did not have is a space."""
    if row is None:
        return " "
    return _REHEARSED_GLYPH[row.rehearsed] if row.rehearsed else GLYPH[row.verdict]


def history_text(records: Sequence[Record]) -> str:
    """The rows that did not always fare the same, a column a trial, and how many did."""
    ids = list(dict.fromkeys(row.id for record in records for row in record.rows))
    by_trial = [{row.id: row for row in record.rows} for record in records]
    lines = [f"{place}  {_named(record)}" for place, record in enumerate(records, start=1)]
    restless = [row for row in ids if len({standing(t[row]) if row in t else "" for t in by_trial}) > 1]
    lines += [f"{row:12} {''.join(glyph(trial.get(row)) for trial in by_trial)}" for row in restless]
    steady = len(ids) - len(restless)
    legend = " ".join(f"{GLYPH[verdict]} {verdict.value.lower()}" for verdict in Verdict)
    return (
        "\n".join([*lines, f"{steady} of {len(ids)} rows fared the same in all trials", f"{legend} r/R rehearsed"])
        + "\n"
    )


def _named(record: Record) -> str:
    header = record.header
    machine = machine_hash(header.environment)
    return f"{one_line(header.trial_id, 40)}  {one_line(header.engine.name, 40)}  machine {machine}"
