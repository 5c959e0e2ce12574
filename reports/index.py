"""Thousands of records as one Parquet file beside them: read once each, again only where the file changed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from conformance.record import BrokenRecord, SkimmedRecord, skim_record
from reports.history import ParquetMissing, told_of
from reports.text import one_line

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

INDEX = "records.parquet"
TRUNCATED, BROKEN = "truncated", "broken"
_TEXTS_OF_TRIAL = (
    "path", "trial", "started", "engine", "version", "model", "revision", "machine", "thresholds", "ended",
)  # fmt: skip
_TEXTS_OF_ROW = ("row", "verdict", "rehearsed", "reason")
_REPEATED = (*_TEXTS_OF_TRIAL, *_TEXTS_OF_ROW)
_OF_FILE = {"size": "int64", "mtime_ns": "int64", "rehearsal": "bool", "exit_code": "int8"}
_NUMBERS = {**_OF_FILE, "duration_s": "float32"}
_LONGEST_REASON = 500
_RECORDS_A_GROUP = 200
_MOST_WORKERS = 8
_NO_EXIT_CODE = -1

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
    known = _known(index)
    if known == stamps:
        return index
    kept = _kept(index, known & stamps)
    whole = directory / f".{INDEX}-{os.getpid()}"
    schema = _schema()
    try:
        with pq.ParquetWriter(whole, schema, compression="zstd") as writer:
            if kept is not None and kept.num_rows:
                writer.write_table(kept.cast(schema))
            for table in _tables(sorted(stamps - known), directory):
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


def _known(index: Path) -> set[Stamp]:
    """The files that the index speaks of; an index of another shape speaks of none."""
    import pyarrow as pa  # noqa: PLC0415  an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        if pq.read_schema(index).names != _schema().names:
            return set()
        table = pq.read_table(index, columns=["path", "size", "mtime_ns"], read_dictionary=["path"])
    except (OSError, pa.ArrowInvalid):
        return set()
    found = table.to_pandas().drop_duplicates()
    return {(str(path), int(size), int(mtime)) for path, size, mtime in found.itertuples(index=False)}


def _kept(index: Path, stamps: set[Stamp]) -> pa.Table | None:
    """What the index says of files that did not change."""
    import pyarrow as pa  # noqa: PLC0415  an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    if not stamps:
        return None
    table = pq.read_table(index, read_dictionary=list(_REPEATED))
    return table.filter(pa.array(table["path"].to_pandas().isin({path for path, _, _ in stamps})))


def _schema() -> pa.Schema:
    import pyarrow as pa  # noqa: PLC0415  an extra

    text = pa.dictionary(pa.int32(), pa.string())
    numbers = {name: pa.from_numpy_dtype(kind) for name, kind in _NUMBERS.items()}
    return pa.schema([*((name, text) for name in _REPEATED), *numbers.items()])


def _tables(stamps: Sequence[Stamp], directory: Path) -> Iterator[pa.Table]:
    """Some records at a time, in several processes where there are many."""
    groups = [stamps[start : start + _RECORDS_A_GROUP] for start in range(0, len(stamps), _RECORDS_A_GROUP)]
    table = partial(_table, directory=directory)
    workers = min(len(groups), len(os.sched_getaffinity(0)), _MOST_WORKERS)
    if workers <= 1:
        yield from map(table, groups)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(table, groups)


class _Codes:
    """A column of texts that recur: each text once, and which of them stands where."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._codes: list[int] = []

    def add(self, texts: Iterable[str]) -> None:
        """Append these."""
        known = self._of
        self._codes += [known.setdefault(text, len(known)) for text in texts]

    def array(self, lengths: Sequence[int] | None = None, *, longest: int | None = None) -> pa.Array:
        """The column; each text as often as `lengths` says, and cut to one line of `longest` characters."""
        import numpy as np  # noqa: PLC0415  only this needs it
        import pyarrow as pa  # noqa: PLC0415  an extra

        codes = np.array(self._codes, np.int32)
        texts = [str(text) if longest is None else one_line(text, longest) for text in self._of]
        whole, again = np.unique(np.array(texts, object), return_inverse=True)
        codes = again.astype(np.int32)[codes]
        return pa.DictionaryArray.from_arrays(codes if lengths is None else np.repeat(codes, lengths), list(whole))


def _table(stamps: Sequence[Stamp], directory: Path) -> pa.Table:
    """One line a row of these records."""
    import numpy as np  # noqa: PLC0415  only this needs it
    import pyarrow as pa  # noqa: PLC0415  an extra

    texts = {name: _Codes() for name in _REPEATED}
    files: dict[str, list[int]] = {name: [] for name in _OF_FILE}
    lengths: list[int] = []
    durations: list[float] = []
    for stamp in stamps:
        told, rows = _told(stamp, directory)
        for name in _TEXTS_OF_TRIAL:
            texts[name].add([str(told[name])])
        for name in _OF_FILE:
            files[name].append(int(told[name]))
        for name, column in rows.texts.items():
            texts[name].add(column)
        lengths.append(len(rows.durations))
        durations += rows.durations
    columns = {name: texts[name].array(lengths) for name in _TEXTS_OF_TRIAL}
    columns |= {name: texts[name].array(longest=_LONGEST_REASON) for name in _TEXTS_OF_ROW}
    columns |= {name: np.repeat(np.array(files[name], kind), lengths) for name, kind in _OF_FILE.items()}
    columns["duration_s"] = np.array(durations, _NUMBERS["duration_s"])
    return pa.table(columns, schema=_schema())


class _Rows(msgspec.Struct, frozen=True):
    """What the index says of a record's rows, by column; a broken record has one row."""

    texts: dict[str, list[str]]
    durations: list[float]


def _told(stamp: Stamp, directory: Path) -> tuple[dict[str, str | int], _Rows]:
    """What the index says of a file, and of its rows."""
    path, size, mtime = stamp
    file: dict[str, str | int] = {**dict.fromkeys(_TEXTS_OF_TRIAL, ""), "path": path, "size": size, "mtime_ns": mtime}
    try:
        record = skim_record(directory / path)
    except BrokenRecord as error:
        texts = {**{name: [""] for name in _TEXTS_OF_ROW}, "reason": [error.cause]}
        return file | {"ended": BROKEN, "rehearsal": False, "exit_code": _NO_EXIT_CODE}, _Rows(texts, [0.0])
    texts = {
        "row": [row.id for row in record.rows],
        "verdict": [row.verdict for row in record.rows],
        "rehearsed": [row.rehearsed or "" for row in record.rows],
        "reason": [row.reason for row in record.rows],
    }
    return file | _of_trial(record), _Rows(texts, [row.duration_s for row in record.rows])


def _of_trial(record: SkimmedRecord) -> dict[str, str | int]:
    footer = record.footer
    return {
        **told_of(record.header),
        "thresholds": record.header.thresholds_sha256,
        "ended": footer.ended if footer else TRUNCATED,
        "exit_code": int(footer.exit_code) if footer else _NO_EXIT_CODE,
    }
