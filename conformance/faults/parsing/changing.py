"""How a fault changes what the header parser reads: bytes, raw entries, checked entries, coverage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.faults.planting import Plant
from reference_engine.header import Header

FILES = ("parse", "dtype", "F-ERR-093")
Raw = dict[str, Any]


def raw_entry(plant: Plant, change: Callable[[Raw], None]) -> None:
    """Change the fields of an entry before they are checked."""
    from reference_engine import header

    def changed(original: Any, walk: Any, name: str, dtype: Any, shape: Any, offsets: Any) -> Any:
        fields = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        change(fields)
        return original(walk, name, fields["dtype"], fields["shape"], fields["data_offsets"])

    plant.replace(header._Walk, "checked", changed)


def header_bytes(plant: Plant, change: Callable[[bytes], bytes]) -> None:
    """Change the header's bytes before they are parsed; the data starts where it did."""
    from reference_engine import files

    def changed(original: Any, path: str, raw: bytes | bytearray, size: int) -> Any:
        new = change(bytes(raw))
        parsed = original(path, new, size - len(raw) + len(new))
        return Header(parsed.tensors, parsed.metadata, 8 + len(raw))

    plant.replace(files, "parse_header", changed)


def checked_entries(plant: Plant, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the checked entries of a file."""
    from reference_engine import files

    def changed(original: Any, path: str, raw: bytes, size: int) -> Any:
        parsed = original(path, raw, size)
        return Header(change(parsed.tensors), parsed.metadata, parsed.data_start)

    plant.replace(files, "parse_header", changed)


def coverage(plant: Plant, check: Callable[[list[Any], int], str]) -> None:
    """Replace the check that tensors cover the data by one that says what is wrong, or nothing."""
    from reference_engine import header
    from reference_engine.errors import InvalidFile

    def checked(_original: Any, path: str, entries: list[Any], size: int) -> None:
        if cause := check(entries, size):
            raise InvalidFile(path, cause)

    plant.replace(header, "_check_coverage", checked)


def each(shape: Any, change: Callable[[Any], Any]) -> Any:
    """A list with each of its members changed; anything else as it is."""
    return [change(size) for size in shape] if isinstance(shape, list) else shape
