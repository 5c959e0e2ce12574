"""What a terminal says while a trial runs: a live view, or one plain line a row where nobody watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from conformance.catalogue import Catalogue
from conformance.record import Record, RowResult
from conformance.verdicts import Rehearsed, Verdict
from reports.summary import READING_ORDER
from reports.terminal import STYLE, glyph, make_console, print_summary, showable
from reports.text import duration, one_line

_LOUD = {Verdict.FALSIFIED, Verdict.ERROR}
_RUNNING_SHOWN = 4


class Progress(Protocol):
    """What the runner tells a reader. No method raises because of the output."""

    def row_started(self, row_id: str) -> None:
        """A check begins."""

    def row_finished(self, result: RowResult) -> None:
        """A row has its verdict."""

    def finish(self, record: Record, scorecard: Path | None = None) -> None:
        """The trial is over: say what it amounts to."""

    def close(self) -> None:
        """Give the terminal back, whatever happened. May be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_progress(catalogue: Catalogue, total: int, console: Console | None = None) -> Progress:
    """A live view on a terminal, plain lines everywhere else; `total` is the number of rows that will run."""
    console = console or make_console()
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveProgress(catalogue, total, console) if live else PlainProgress(catalogue, total, console)


class PlainProgress:
    """One line a finished row, without colour or cursor movement: for pipes, files and CI logs."""

    def __init__(self, catalogue: Catalogue, total: int, console: Console) -> None:
        self._catalogue, self._total, self._console = catalogue, total, console
        self._finished = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def row_started(self, row_id: str) -> None:
        """Nothing: a line is written when the row is finished."""

    def row_finished(self, result: RowResult) -> None:
        """Write the row's line."""
        self._finished += 1
        digits = len(str(self._total))
        place = f"[{self._finished:>{digits}}/{self._total}]"
        line = f"{place} {result.verdict.value:<12} {result.id:<12} {_remark(result)}".rstrip()
        self._console.print(Text(showable(line, self._console)), soft_wrap=True)
        self._console.file.flush()

    def finish(self, record: Record, scorecard: Path | None = None) -> None:
        """Print the summary."""
        print_summary(record, self._catalogue, self._console, scorecard)

    def close(self) -> None:
        """Nothing to give back."""


class LiveProgress:
    """A bar, the tally and the rows that run, redrawn in place; failures are printed above as they come."""

    def __init__(
        self,
        catalogue: Catalogue,
        total: int,
        console: Console,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._catalogue, self._total, self._console, self._clock = catalogue, total, console, clock
        self._began = clock()
        self._running: dict[str, float] = {}
        self._tally: Counter[Verdict] = Counter()
        self._live = Live(get_renderable=self._view, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def row_started(self, row_id: str) -> None:
        """Show the row among those that run."""
        self._running[row_id] = self._clock()

    def row_finished(self, result: RowResult) -> None:
        """Count the row; print it if it failed."""
        self._running.pop(result.id, None)
        self._tally[result.verdict] += 1
        if result.verdict in _LOUD or result.rehearsed is Rehearsed.FAILED:
            line = f"{glyph(result.verdict, self._console)} {result.verdict.value} {result.id} {_remark(result)}"
            style = STYLE[result.verdict if result.verdict in _LOUD else Verdict.FALSIFIED]
            self._console.print(Text(showable(line, self._console), style=style))

    def finish(self, record: Record, scorecard: Path | None = None) -> None:
        """Take the view away and print the summary."""
        self.close()
        print_summary(record, self._catalogue, self._console, scorecard)

    def close(self) -> None:
        """Take the view away and show the cursor again."""
        self._live.stop()

    def _view(self) -> Group:
        done = sum(self._tally.values())
        head = Table.grid(padding=(0, 1), expand=False)
        head.add_row(
            ProgressBar(total=max(1, self._total), completed=done, width=max(10, min(40, self._console.width // 3))),
            Text(f"{done}/{self._total}"),
            Text(duration(self._clock() - self._began), style="dim"),
        )
        return Group(head, self._tally_line(), self._running_line())

    def _tally_line(self) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        for verdict in READING_ORDER:
            if self._tally[verdict]:
                line.append(f"{glyph(verdict, self._console)} {self._tally[verdict]}  ", STYLE[verdict])
        return line

    def _running_line(self) -> Text:
        now = self._clock()
        shown = list(self._running.items())[-_RUNNING_SHOWN:]
        words = ", ".join(f"{showable(row, self._console)} ({duration(now - since)})" for row, since in shown)
        return Text(words, style="dim", no_wrap=True, overflow="ellipsis")


def _remark(result: RowResult) -> str:
    reason = one_line(result.reason, 160)
    rehearsed = f"rehearsal {result.rehearsed.value}: " if result.rehearsed else ""
    return f"({duration(result.duration_s)}) {rehearsed}{reason}".rstrip()
