"""Record → what a terminal says at the end: the verdict, what failed, the one command that shows it again."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from conformance.catalogue import Catalogue
from conformance.record import Record
from conformance.verdicts import Verdict
from reports.explain import addition, decisive
from reports.summary import GLYPH, READING_ORDER, Entry, Summary, reasons, summarise
from reports.text import one_line, visible

STYLE: dict[Verdict, str] = {
    Verdict.CORROBORATED: "green",
    Verdict.FALSIFIED: "bold red",
    Verdict.WARNING: "yellow",
    Verdict.INCONCLUSIVE: "magenta",
    Verdict.UNTESTED: "dim",
    Verdict.ERROR: "bold magenta",
}
_ASCII_GLYPH = {"✓": "+", "✗": "x", "\N{EN DASH}": "-"}
_CI_COMMAND = re.compile(r"^(\s*)(::|##\[)", re.MULTILINE)
_MOST_FAILURES = 40
_MOST_REASONS = 8


class LastingStream(io.TextIOBase):
    """A text stream whose reader may leave: a closed pipe or a full disk must not end a trial.

    At the first error it falls silent, and what the interpreter would still flush at its end goes nowhere, so that
    the exit code stays ours.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream: IO[str] | None = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has a plain attribute here
        """The encoding of the stream beneath."""
        return self._encoding

    def isatty(self) -> bool:
        """True on a terminal that is still there."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor beneath."""
        if self._stream is None:
            raise io.UnsupportedOperation("the output is gone")
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        """Write, or forget."""
        self._attempt(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or forget."""
        self._attempt(lambda stream: stream.flush())

    def _attempt(self, action: Callable[[IO[str]], object]) -> None:
        if self._stream is None:
            return
        try:
            action(self._stream)
        except (OSError, ValueError):
            gone, self._stream = self._stream, None
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, gone.fileno())
                os.close(nowhere)


def make_console(stream: IO[str] | None = None, width: int | None = None) -> Console:
    """A console for foreign text: no markup, no emoji codes, no highlighting; colour only on a terminal."""
    file = cast("IO[str]", LastingStream(stream or sys.stdout))
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False)


def print_summary(record: Record, catalogue: Catalogue, console: Console, scorecard: Path | None = None) -> None:
    """Print what the record amounts to; on a console of `make_console` it never raises because of the output."""
    summary = summarise(record, catalogue)
    _say(console, "")
    _failures(console, summary)
    _undecided(console, summary)
    _say(console, summary.headline, STYLE[summary.verdict] if not record.header.rehearsal else "bold")
    _say(console, summary.detail)
    for problem in summary.problems:
        _say(console, f"! {problem.text}", "bold red" if problem.grave else "yellow")
    shut = not summary.gate_open or not summary.trustworthy
    _say(console, f"Gate: {summary.gate}", "bold red" if shut else "green")
    if scorecard is not None:
        _say(console, f"Scorecard: {scorecard}", whole=True)


def glyph(verdict: Verdict, console: Console) -> str:
    """The verdict's sign, in ASCII where the output cannot show it."""
    sign = GLYPH[verdict]
    return sign if _can_show(sign, console) else _ASCII_GLYPH.get(sign, sign)


def _failures(console: Console, summary: Summary) -> None:
    bad = [*summary.having(Verdict.FALSIFIED), *summary.having(Verdict.ERROR), *summary.failed_rehearsals]
    for entry in bad[:_MOST_FAILURES]:
        _failure(console, entry)
    if len(bad) > _MOST_FAILURES:
        _say(console, f"and {len(bad) - _MOST_FAILURES} more; the scorecard has them all")
        _say(console, "")


def _failure(console: Console, entry: Entry) -> None:
    row, result = entry.row, entry.result
    verdict = Verdict.FALSIFIED if entry.rehearsal_failed else result.verdict
    kind = "failed in rehearsal on the CPU" if entry.rehearsal_failed else verdict.value
    _say(console, f"{glyph(verdict, console)} {row.id} {kind}: {row.test}", STYLE[verdict])
    _say(console, one_line(result.reason, 400), indent=2)
    point = decisive(result)
    if point and point.observation and (more := addition(point.observation, result.reason)):
        _say(console, more, indent=2)
    if result.reproduce:
        _say(console, f"  {result.reproduce}", "cyan", whole=True)
    _say(console, "")


def _undecided(console: Console, summary: Summary) -> None:
    for verdict in READING_ORDER:
        entries = [entry for entry in summary.having(verdict) if not entry.rehearsal_failed]
        if verdict in {Verdict.FALSIFIED, Verdict.ERROR, Verdict.CORROBORATED} or not entries:
            continue
        _say(console, f"{glyph(verdict, console)} {len(entries)} {verdict.value.lower()}", STYLE[verdict])
        ranked = reasons(entries)
        for reason, count in ranked[:_MOST_REASONS]:
            where = entry_ids(entries, reason) if count <= 3 else f"{count} rows"  # noqa: PLR2004 ids that fit a line
            _say(console, f"{where}: {one_line(reason, 300)}", indent=2)
        if len(ranked) > _MOST_REASONS:
            _say(console, f"and {len(ranked) - _MOST_REASONS} other reasons", indent=2)
        _say(console, "")


def entry_ids(entries: list[Entry], reason: str) -> str:
    """The ids of the rows that share a reason."""
    return ", ".join(entry.row.id for entry in entries if (entry.result.reason or "no reason given") == reason)


def _say(console: Console, words: str, style: str = "", indent: int = 0, *, whole: bool = False) -> None:
    """One paragraph; `whole` keeps it on one line however narrow the terminal, so that it can be copied.

    Nothing is wrapped in a pipe or a file, where no width is known.
    """
    if not words:
        return console.print()
    whole = whole or not console.is_terminal
    text = Text(" " * indent * whole + showable(words, console), style=style)
    console.print(text if whole else Padding(text, (0, 0, 0, indent), expand=False), soft_wrap=whole)
    return None


def showable(words: str, console: Console) -> str:
    """The words with nothing invisible in them, nothing that the output's encoding lacks, no command to a CI runner."""
    encoding = console.encoding or "ascii"
    words = _CI_COMMAND.sub(r"\1\\\2", visible(words))
    return words.encode(encoding, "backslashreplace").decode(encoding, "replace")


def _can_show(sign: str, console: Console) -> bool:
    try:
        sign.encode(console.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
