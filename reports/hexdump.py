"""Counter-examples as hex: the lines that matter, with the offending bytes marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

WIDTH = 16
_FIRST_PRINTABLE, _LAST_PRINTABLE = 0x20, 0x7E


class Exhibit(msgspec.Struct, frozen=True):
    """The content of an evidence file, and the half-open byte ranges in it that the verdict rests on."""

    data: bytes
    marked: tuple[tuple[int, int], ...] = ()


class HexByte(msgspec.Struct, frozen=True):
    """One byte of a dump: two hex digits, the printable character or a dot, and whether it is marked."""

    hexadecimal: str
    character: str
    marked: bool


class HexLine(msgspec.Struct, frozen=True):
    """One line of a dump; `skipped` is the number of bytes left out before it."""

    offset: int
    cells: tuple[HexByte, ...]
    skipped: int = 0


def hexdump(exhibit: Exhibit, max_lines: int = 24, context: int = 1) -> list[HexLine]:
    """Lines of 16 bytes: the beginning, and those around the marked ranges; `max_lines` in all."""
    total = -(-len(exhibit.data) // WIDTH)
    wanted = set(range(min(total, 4 if exhibit.marked else max_lines)))
    for begin, end in exhibit.marked:
        first, last = begin // WIDTH - context, max(begin, end - 1) // WIDTH + context
        wanted.update(range(max(0, first), min(total, first + max_lines, last + 1)))
    return list(_lines(exhibit, sorted(wanted)[:max_lines]))


def _lines(exhibit: Exhibit, numbers: Sequence[int]) -> Iterable[HexLine]:
    expected = 0
    for line in numbers:
        offset = line * WIDTH
        yield HexLine(offset, tuple(_cells(exhibit, offset)), skipped=offset - expected)
        expected = offset + WIDTH


def _cells(exhibit: Exhibit, offset: int) -> Iterable[HexByte]:
    for position, byte in enumerate(exhibit.data[offset : offset + WIDTH], start=offset):
        shown = chr(byte) if _FIRST_PRINTABLE <= byte <= _LAST_PRINTABLE else "."
        marked = any(begin <= position < end for begin, end in exhibit.marked)
        yield HexByte(f"{byte:02x}", shown, marked)
