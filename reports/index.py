"""Thousands of records as one Parquet file beside them: read once each, again only where the file changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.record import BrokenRecord, Record, RowResult, read_record
from reports.history import ParquetMissing, told_of
from reports.text import one_line

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

INDEX = "records.parquet"
TRUNCATED, BROKEN = "truncated", "broken"
_REPEATED = (
    "path", "trial", "started", "engine", "version", "model", "revision", "machine", "thresholds", "ended", "row",
    "verdict", "rehearsed", "reason",
)  # fmt: skip
_NUMBERS = {"size": "int64", "mtime_ns": "int64", "rehearsal": "bool", "exit_code": "int8", "duration_s": "float32"}
_LONGEST_REASON = 500
_RECORDS_A_GROUP = 200
_NO_EXIT_CODE = -1

Line = dict[str, object]
Stamp = tuple[str, int, int]


def update_index(directory: Path) -> Path:
    """Bring the index of all records below a directory up to date; its path.

    A record that cannot be read has one line, with `ended` "broken" and the cause as its reason.

    Raises:
        ParquetMissing: pyarrow is not installed.
        OSError: the directory cannot be read or written.
    """
    if find_spec("pyarrow") is None:
        raise ParquetMissing
    import pyarrow.parquet as pq  # noqa: PLC0415  an extra

    index = directory / INDEX
    stamps = {_stamp(path, directory) for path in _files(directory)}
    known, kept = _kept(index, stamps)
    if index.is_file() and known == stamps:
        return index
    whole = directory / f".{INDEX}-{os.getpid()}"
    schema = _schema()
    try:
        with pq.ParquetWriter(whole, schema, compression="zstd") as writer:
            if kept is not None and kept.num_rows:
                writer.write_table(kept.cast(schema))
            for table in _tables(sorted(stamps - known), directory, schema):
                writer.write_table(table)
        whole.replace(index)
    finally:
        whole.unlink(missing_ok=True)
    return index


def read_index(index: Path, columns: Sequence[str]) -> pd.DataFrame:
    """These columns of the index, texts as categories."""
    import pyarrow.parquet as pq  # noqa: PLC0415  an extra

    repeated = [name for name in columns if name in _REPEATED]
    table: pd.DataFrame = pq.read_table(index, columns=list(columns), read_dictionary=repeated).to_pandas()
    return table


def _files(directory: Path) -> Iterator[Path]:
    """Records at any depth; `latest` and other links are not followed."""
    for place, _, names in os.walk(directory, onerror=_raise):
        for name in names:
            path = Path(place, name)
            if name.startswith("record") and name.endswith(".jsonl") and not path.is_symlink():
                yield path


def _raise(error: OSError) -> None:
    raise error


def _stamp(path: Path, directory: Path) -> Stamp:
    stat = path.stat()
    return path.relative_to(directory).as_posix(), stat.st_size, stat.st_mtime_ns


def _kept(index: Path, stamps: set[Stamp]) -> tuple[set[Stamp], pa.Table | None]:
    """What the index says already of files that did not change; an index of another shape says nothing."""
    import pyarrow as pa  # noqa: PLC0415  an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        table = pq.read_table(index, read_dictionary=list(_REPEATED))
    except (OSError, pa.ArrowInvalid):
        return set(), None
    if not table.schema.equals(_schema()):
        return set(), None
    frame = table.select(["path", "size", "mtime_ns"]).to_pandas()
    found = frame.drop_duplicates()
    known = {(str(path), int(size), int(mtime)) for path, size, mtime in found.itertuples(index=False)} & stamps
    fresh = frame["path"].isin({path for path, _, _ in known})
    return known, table if bool(fresh.all()) else table.filter(pa.array(fresh))


def _schema() -> pa.Schema:
    import pyarrow as pa  # noqa: PLC0415  an extra

    text = pa.dictionary(pa.int32(), pa.string())
    numbers = {name: pa.from_numpy_dtype(kind) for name, kind in _NUMBERS.items()}
    return pa.schema([*((name, text) for name in _REPEATED), *numbers.items()])


def _tables(stamps: Sequence[Stamp], directory: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Some records at a time, so that memory does not grow with their number."""
    import pyarrow as pa  # noqa: PLC0415  an extra

    for start in range(0, len(stamps), _RECORDS_A_GROUP):
        group = stamps[start : start + _RECORDS_A_GROUP]
        yield pa.Table.from_pylist([line for stamp in group for line in _lines(stamp, directory)], schema=schema)


def _lines(stamp: Stamp, directory: Path) -> Iterable[Line]:
    path, size, mtime = stamp
    file: Line = {"path": path, "size": size, "mtime_ns": mtime}
    try:
        record = read_record(directory / path)
    except BrokenRecord as error:
        return [file | _of_broken(error)]
    of_trial = file | _of_trial(record)
    return [of_trial | _of_row(row) for row in record.rows]


def _of_broken(error: BrokenRecord) -> Line:
    texts: dict[str, Any] = dict.fromkeys(_REPEATED[1:], "")
    numbers = {"rehearsal": False, "exit_code": _NO_EXIT_CODE, "duration_s": 0.0}
    return texts | numbers | {"ended": BROKEN, "reason": one_line(error.cause, _LONGEST_REASON)}


def _of_trial(record: Record) -> Line:
    footer = record.footer
    return {
        **told_of(record.header),
        "thresholds": record.header.thresholds_sha256,
        "ended": footer.ended if footer else TRUNCATED,
        "exit_code": int(footer.exit_code) if footer else _NO_EXIT_CODE,
    }


def _of_row(row: RowResult) -> Line:
    return {
        "row": row.id,
        "verdict": row.verdict.value,
        "rehearsed": row.rehearsed.value if row.rehearsed else "",
        "reason": one_line(row.reason, _LONGEST_REASON),
        "duration_s": row.duration_s,
    }
