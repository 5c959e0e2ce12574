"""A cell on disk: its trials, the note of the one that is done, and the lock of whoever works on it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from conformance.matrix.cells import Cell
from conformance.record import RECORD_FILE, BrokenRecord, Record, read_record
from conformance.trial.host_lock import taken
from conformance.verdicts import ExitCode

NOTE = "cell.json"
_PAUSE_S = 0.1


class CellBusy(Exception):
    """Another process works on this cell of the same directory."""

    def __init__(self, cell: str) -> None:
        self.cell = cell
        super().__init__(f"cell {cell} is being tried by another process of this matrix")


class Note(msgspec.Struct, frozen=True):
    """Which trial settled a cell: its inputs' hash, its run directory and its record's hash."""

    inputs_sha256: str
    run: str
    record_sha256: str


class CellDirectory:
    """The directory of one cell: `cell.json` beside one run directory a trial."""

    def __init__(self, out: Path, cell: Cell) -> None:
        self.cell = cell
        self.path = out / "cells" / cell.name

    @contextmanager
    def locked(self, patience_s: float = 0.0) -> Iterator[None]:
        """Work on the cell alone, until the block or this process ends.

        Raises:
            CellBusy: somebody else does, and still did when `patience_s` seconds had gone by.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            deadline = time.monotonic() + patience_s
            while not taken(descriptor, fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    raise CellBusy(self.cell.name)
                time.sleep(_PAUSE_S)
            yield
        finally:
            os.close(descriptor)

    def settle(self, inputs_sha256: str, run: Path) -> None:
        """Note that this trial settled the cell; all of the note is there or none."""
        note = Note(inputs_sha256, run.name, _sha256(run / RECORD_FILE))
        whole = self.path / f".{NOTE}"
        whole.write_bytes(msgspec.json.encode(note))
        whole.replace(self.path / NOTE)

    def note(self) -> Note | None:
        """The note, or None where no trial settled the cell."""
        try:
            return msgspec.json.decode((self.path / NOTE).read_bytes(), type=Note)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def done(self, inputs_sha256: str | None = None) -> Settled | None:
        """The trial that settled the cell, if its record is whole and still what was noted.

        Args:
            inputs_sha256: If given, it must have had these inputs.
        """
        note = self.note()
        if note is None or inputs_sha256 not in {None, note.inputs_sha256} or "/" in note.run:
            return None
        file = self.path / note.run / RECORD_FILE
        try:
            if _sha256(file) != note.record_sha256:
                return None
            record = read_record(file)
        except (OSError, BrokenRecord):
            return None
        return Settled(note, file, record) if settles(record) else None


class Settled(msgspec.Struct, frozen=True):
    """A cell's trial that is done."""

    note: Note
    file: Path
    record: Record


def settles(record: Record) -> bool:
    """True where there is nothing to gain from trying again: it ran to its end and the harness did not fail."""
    footer = record.footer
    return footer is not None and footer.ended == "completed" and footer.exit_code is not ExitCode.HARNESS


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
