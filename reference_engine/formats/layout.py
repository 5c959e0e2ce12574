"""What GGUF and APR check alike: tensors that lie inside the data, apart from each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from reference_engine.errors import InvalidFile, quote

if TYPE_CHECKING:
    from reference_engine.header import TensorEntry


def require_apart(path: str, form: str, entries: Iterable[TensorEntry], data_bytes: int, alignment: int) -> None:
    """Raise InvalidFile unless every tensor begins aligned, ends inside the data and overlaps no other."""
    end = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin % alignment:
            cause = f"tensor {quote(entry.name)} begins at {entry.begin}, which is no multiple of {alignment}"
            raise InvalidFile(path, cause, form)
        if entry.end > data_bytes:
            cause = f"tensor {quote(entry.name)} ends at byte {entry.end} of {data_bytes} bytes of data"
            raise InvalidFile(path, cause, form)
        if entry.begin < end:
            raise InvalidFile(path, f"tensor {quote(entry.name)} overlaps the one before it", form)
        end = entry.end


def padded(length: int, alignment: int) -> int:
    """The next multiple of `alignment` from `length` on."""
    return length + -length % alignment
