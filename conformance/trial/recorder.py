"""Writes the record while the trial runs, so that whatever happens a valid one is left."""

from __future__ import annotations

import time
from collections.abc import Callable
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


class Recorder:
    """Appends lines to the record and flushes each one; `finish` fills in every row that has none."""

    def __init__(self, directory: Path, header: Header, listener: Listener) -> None:
        self.path = directory / RECORD_FILE
        self.header = header
        self.results: dict[str, RowResult] = {}
        self._listener = listener
        self._began = time.monotonic()
        self._file = self.path.open("xb")
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

    def finish(self, ended: Ended, absent: Callable[[str], RowResult]) -> Record:
        """Write a line for every row that has none (`absent` says why), then the footer."""
        for row_id in self.header.rows:
            if row_id not in self.results:
                self._keep(absent(row_id))
        rows = [self.results[row_id] for row_id in self.header.rows]
        footer = Footer(
            ended=ended,
            finished=now(),
            duration_s=round(time.monotonic() - self._began, 3),
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
        self._file.write(line)
        self._file.flush()


def untested(row_id: str, reason: str) -> RowResult:
    """A row nobody tried."""
    return RowResult(row_id, Verdict.UNTESTED, reason=reason)


def now() -> str:
    """UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
