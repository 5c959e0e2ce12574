"""How far a matrix is: pure counts, and an estimate of the time left from what rows took so far."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import mean

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
        self._took: dict[str, list[float]] = defaultdict(list)
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
                    self._took[event.id].append(event.duration_s)
                    self.verdicts[cell.name][event.verdict] += 1
            case CellDone():
                self.done[cell.name] = event
                self.left.pop(cell.name, None)

    def seconds_left(self) -> float | None:
        """Row by row what it took on the average so far, over the places; None while no row has ended."""
        if not self._took:
            return None
        typical = mean(value for values in self._took.values() for value in values)
        expected = {row: mean(values) for row, values in self._took.items()}
        unbegun = sum(cell.name not in self.done and cell.name not in self.left for cell in self.cells)
        rows = [row for left in self.left.values() for row in left] + self._rows * unbegun
        return sum(expected.get(row, typical) for row in rows) / self.places
