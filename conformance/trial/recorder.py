"""Writes the record while the trial runs, so that whatever happens a valid one is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from conformance.record import RECORD_FILE, Footer, Header, Record, RowResult, counts, encode_line
from conformance.trial.outcome import exit_code, headline_verdict
from conformance.verdicts import Verdict

Ended = Literal["completed", "interrupted", "broken"]


class Listener(Protocol):
    """Someone who wants to see rows as they start and end (the terminal)."""

    def row_started(self, row_id: str) -> None:
        """A row's check begins."""

    def row_finished(self, result: RowResult) -> None:
        """A row's result was recorded."""


class TwiceRecorded(Exception):
    """Two results for one row; neither can be believed."""

    def __init__(self, row_id: str) -> None:
        self.row_id = row_id
        super().__init__(f"{row_id} was recorded twice")


class RecordUnwritable(Exception):
    """The record cannot be written any more; what there is of it ends with a whole line and has no footer."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.path, self.error = path, error
        super().__init__(f"{path}: {error.strerror}; the record is truncated and settles nothing")


class Recorder:
    """Appends lines to the record, each whole or not at all; `finish` fills in every row that has none."""

    def __init__(self, directory: Path, header: Header, listener: Listener) -> None:
        self.path = directory / RECORD_FILE
        self.header = header
        self.results: dict[str, RowResult] = {}
        self._listener = listener
        self._began = time.monotonic()
        self._file = self.path.open("xb", buffering=0)
        self._unwritable: RecordUnwritable | None = None
        try:
            self._write(encode_line(header))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def started(self, row_id: str) -> None:
        """Pass on that a row begins."""
        self._listener.row_started(row_id)

    def record(self, result: RowResult) -> None:
        """Write one row's line.

        Raises:
            TwiceRecorded: the row has a line already.
        """
        self._keep(result)
        self._listener.row_finished(result)

    def finish(self, ended: Ended, absent: Callable[[str], RowResult], *, duration_s: float | None = None) -> Record:
        """Write a line for every row that has none (`absent` says why), then the footer; it took as long as told."""
        for row_id in self.header.rows:
            if row_id not in self.results:
                self._keep(absent(row_id))
        rows = [self.results[row_id] for row_id in self.header.rows]
        footer = Footer(
            ended=ended,
            finished=now(),
            duration_s=round(time.monotonic() - self._began if duration_s is None else duration_s, 3),
            exit_code=exit_code(rows, rehearsal=self.header.rehearsal, ended=ended),
            counts=counts(rows),
            verdict=headline_verdict(rows),
        )
        self._write(encode_line(footer))
        return Record(self.header, rows, footer)

    def _keep(self, result: RowResult) -> None:
        if result.id in self.results:
            raise TwiceRecorded(result.id)
        self.results[result.id] = result
        self._write(encode_line(result))

    def _write(self, line: bytes) -> None:
        """One whole line; after the first that cannot be written no other follows, however much room comes back."""
        if self._unwritable is not None:
            raise self._unwritable
        before, rest = self._file.tell(), memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._unwritable = RecordUnwritable(self.path, error)
            with suppress(OSError):
                self._file.truncate(before)
            raise self._unwritable from error


def untested(row_id: str, reason: str) -> RowResult:
    """A row nobody tried."""
    return RowResult(row_id, Verdict.UNTESTED, reason=reason)


def now() -> str:
    """UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
