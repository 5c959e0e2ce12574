"""How far a matrix is: pure counts, and an estimate of the time left from what rows took so far."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from conformance.matrix.cells import Cell
from conformance.matrix.trial import CellDone, Event, Planned, RowDone
from conformance.verdicts import Verdict


class Tally:
    """What was heard of the cells so far."""

    def __init__(self, cells: Sequence[Cell], places: int) -> None:
        self.cells, self.places = cells, max(1, places)
        self.left: dict[str, list[str]] = {}
        self.done: dict[str, CellDone] = {}
        self.verdicts: dict[str, Counter[Verdict]] = defaultdict(Counter)
        self._spent: dict[str, float] = defaultdict(float)
        self._times: Counter[str] = Counter()
        self._rows: list[str] = []

    def hear(self, cell: Cell, event: Event) -> None:
        """Count one event."""
        match event:
            case Planned():
                self.left[cell.name] = list(event.rows)
                self.verdicts[cell.name].clear()
                self._rows = self._rows or list(event.rows)
            case RowDone():
                if event.id in self.left.get(cell.name, []):
                    self.left[cell.name].remove(event.id)
                    self._spent[event.id] += event.duration_s
                    self._times[event.id] += 1
                    self.verdicts[cell.name][event.verdict] += 1
            case CellDone():
                self.done[cell.name] = event
                self.left.pop(cell.name, None)

    def seconds_left(self) -> float | None:
        """Row by row what it took on the average so far, over the places; None while no row has ended."""
        if not self._times:
            return None
        typical = sum(self._spent.values()) / self._times.total()
        expected = {row: self._spent[row] / times for row, times in self._times.items()}
        unbegun = len(self.cells) - len(self.done) - len(self.left)
        begun = sum(expected.get(row, typical) for left in self.left.values() for row in left)
        return (begun + unbegun * sum(expected.get(row, typical) for row in self._rows)) / self.places
