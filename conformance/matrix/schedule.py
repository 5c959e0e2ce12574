"""When and where rows ran, from the records of several trials of one host: was a timed row alone, a GPU shared?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from conformance.catalogue import Catalogue
from conformance.record import Record


class Span(msgspec.Struct, frozen=True):
    """One row of one trial: from when to when, in seconds of the host's monotonic clock, on which device."""

    trial: str
    row: str
    device: str
    began_s: float
    ended_s: float
    alone: bool
    on_device: bool = True

    def overlaps(self, other: Span) -> bool:
        """True where both ran at one time."""
        return self.began_s < other.ended_s and other.began_s < self.ended_s


def spans(records: Iterable[Record], catalogue: Catalogue) -> list[Span]:
    """Every row that was tried, in the order in which they began."""
    found = [
        Span(
            record.header.trial_id,
            row.id,
            row.device,
            row.began_s,
            row.began_s + row.duration_s,
            catalogue.row(row.id).alone,
            catalogue.row(row.id).on_device,
        )
        for record in records
        for row in record.rows
        if row.began_s > 0
    ]
    return sorted(found, key=lambda span: (span.began_s, span.ended_s))


def disturbed(placed: Iterable[Span]) -> list[tuple[Span, Span]]:
    """Timed rows with whatever ran beside them on the host; none in a host whose locks held."""
    return [_timed_first(one, other) for one, other in _together(placed) if one.alone or other.alone]


def tenants(placed: Iterable[Span]) -> list[tuple[Span, Span]]:
    """Rows that used one GPU at one time; none where each GPU belongs to one worker of one trial."""
    on_device = [span for span in placed if span.on_device and span.device]
    return [(one, other) for one, other in _together(on_device) if one.device == other.device]


def busy_s(placed: Iterable[Span]) -> float:
    """Seconds from the first row's beginning to the last one's end."""
    rows = list(placed)
    return max(row.ended_s for row in rows) - min(row.began_s for row in rows) if rows else 0.0


def _together(placed: Iterable[Span]) -> Iterator[tuple[Span, Span]]:
    """Pairs of rows that ran at one time; the rows come in the order in which they began."""
    running: list[Span] = []
    for span in placed:
        running = [each for each in running if each.ended_s > span.began_s]
        yield from ((each, span) for each in running if each.overlaps(span))
        running.append(span)


def _timed_first(one: Span, other: Span) -> tuple[Span, Span]:
    return (one, other) if one.alone else (other, one)
