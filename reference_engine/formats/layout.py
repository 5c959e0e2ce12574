"""What GGUF and APR check alike: tensors that lie inside the data, apart from each other, and are all used."""

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


def is_bias(name: str) -> bool:
    """Whether a checkpoint's tensor is the bias of a product."""
    return name.endswith("_proj.bias")


def require_no_biases(path: str, form: str, names: Iterable[str]) -> None:
    """Raise InvalidFile if a Llama's tensors have biases: the file has no words for which of them are meant."""
    found = next(filter(is_bias, names), None)
    if found is not None:
        raise InvalidFile(path, f"the bias {quote(found)} of a Llama is not supported in this format", form)
