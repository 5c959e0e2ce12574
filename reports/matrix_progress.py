"""What a terminal says while a matrix runs: a table of all cells on a terminal, a line a cell everywhere else."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from conformance.matrix.cells import Cell
from conformance.matrix.progress import Tally
from conformance.matrix.trial import CellDone, Event
from conformance.verdicts import EXIT_MEANING, ExitCode
from reports.summary import READING_ORDER
from reports.terminal import STYLE, glyph, showable
from reports.text import duration, one_line


class MatrixProgress:
    """Hears of every cell from several threads and shows it."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self._tally, self._console, self._lock = tally, console, threading.Lock()
        watched = console.is_terminal and not console.is_dumb_terminal
        self._live = (
            Live(get_renderable=self._view, console=console, refresh_per_second=2, transient=True) if watched else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def hear(self, cell: Cell, event: Event) -> None:
        """Count, and print a cell that is over."""
        with self._lock:
            self._tally.hear(cell, event)
            if isinstance(event, CellDone):
                line = f"[{len(self._tally.done)}/{len(self._tally.cells)}] {cell.name}: {self._fared(cell, event)}"
                self._console.print(Text(showable(f"{line}{self._left()}", self._console)), soft_wrap=True)
                self._console.file.flush()

    def _fared(self, cell: Cell, event: CellDone) -> str:
        code = ExitCode(event.exit_code)
        counted = self._tally.verdicts[cell.name]
        verdicts = ", ".join(f"{counted[each]} {each.value}" for each in READING_ORDER if counted[each])
        how = "done before, inputs unchanged" if event.reused else one_line(event.cause) or verdicts
        return f"exit code {int(code)} ({EXIT_MEANING[code].split(':')[0].rstrip('.')}); {how}"

    def _left(self) -> str:
        seconds = self._tally.seconds_left()
        return f"; about {duration(seconds)} left" if seconds else ""

    def _view(self) -> Table:
        with self._lock:
            table = Table.grid(padding=(0, 2))
            table.add_row(Text(f"{len(self._tally.done)}/{len(self._tally.cells)} cells{self._left()}", style="bold"))
            for name, left in self._tally.left.items():
                counted = self._tally.verdicts[name]
                line = Text()
                for each in READING_ORDER:
                    if counted[each]:
                        line.append(f"{glyph(each, self._console)} {counted[each]}  ", STYLE[each])
                table.add_row(Text(showable(name, self._console)), Text(f"{len(left)} rows left"), line)
            return table
