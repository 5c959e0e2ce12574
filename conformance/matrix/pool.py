"""Cells on the places of one host: a thread a place waits for the process that tries its cell."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import msgspec

from conformance.matrix.cells import Cell
from conformance.matrix.devices import Place
from conformance.matrix.trial import CellDone, Event, Request
from conformance.trial.launching import PROJECT
from conformance.verdicts import ExitCode

Hear = Callable[[Cell, Event], None]
_MOST_LINE_BYTES = 1 << 20
_LAST_WORDS = 400


class Pool:
    """Runs cells; `stop` ends their processes in order, so that each leaves a valid record."""

    def __init__(self, places: Sequence[Place], request: Callable[[Cell], Request], hear: Hear) -> None:
        self._places, self._request, self._hear = places, request, hear
        self._stopped = threading.Event()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(self, cells: Sequence[Cell]) -> None:
        """Try all cells; each place takes the next that it serves."""
        waiting = list(cells)
        with ThreadPoolExecutor(len(self._places)) as threads:
            for done in [threads.submit(self._work, place, waiting) for place in self._places]:
                done.result()

    def stop(self) -> None:
        """Start nothing more, and ask what runs to end."""
        self._stopped.set()
        with self._lock:
            for process in self._processes:
                with suppress(ProcessLookupError):
                    process.terminate()

    def _work(self, place: Place, waiting: list[Cell]) -> None:
        while not self._stopped.is_set():
            with self._lock:
                cell = next((each for each in waiting if place.serves(each)), None)
                if cell is None:
                    return
                waiting.remove(cell)
            self._hear(cell, self._try(cell, place))

    def _try(self, cell: Cell, place: Place) -> CellDone:
        with trial_process(place.env) as process:
            with self._lock:
                self._processes.add(process)
            try:
                return self._follow(cell, process)
            finally:
                with self._lock:
                    self._processes.discard(process)

    def _follow(self, cell: Cell, process: subprocess.Popen[bytes]) -> CellDone:
        for event in events_of(process, self._request(cell)):
            if isinstance(event, CellDone):
                return event
            self._hear(cell, event)
        raise AssertionError("the last event is the cell's end")


@contextmanager
def trial_process(env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process that will try one cell; it is asked to end, and waited for, where the block is left early."""
    with subprocess.Popen(
        [sys.executable, "-m", "conformance.matrix.trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | dict(env) | {"PYTHONPATH": str(PROJECT)},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def events_of(process: subprocess.Popen[bytes], request: Request) -> Iterator[Event]:
    """What a cell's process tells; the last is always its end, be it that the process died without a word."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError), process.stdin as asked:
        asked.write(msgspec.json.encode(request))
    last: CellDone | None = None
    while line := process.stdout.readline(_MOST_LINE_BYTES):
        event = _decoded(line)
        if isinstance(event, CellDone):
            last = event
        elif event is not None:
            yield event
    yield _ended(process.wait(), last)


def _decoded(line: bytes) -> Event | None:
    try:
        return msgspec.json.decode(line, type=Event)  # type: ignore[no-any-return]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _ended(status: int, last: CellDone | None) -> CellDone:
    """What the process said, if it ended as it said."""
    if last is not None and status == last.exit_code:
        return last
    how = f"killed by signal {-status}" if status < 0 else f"ended with {status}"
    return CellDone(int(ExitCode.HARNESS), cause=f"its process was {how}" if status < 0 else f"its process {how}")
