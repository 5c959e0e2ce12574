"""What a reader makes of one file, in the protocol's words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from conformance.protocol.messages import TensorEntry

TORCH_SPELLING = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "bool_": "BOOL",
    "complex64": "C64",
}


@dataclass(frozen=True)
class OpenFile:
    """A file as its reader sees it; `read` gives one tensor's bytes."""

    entries: list[TensorEntry]
    read: Callable[[str], bytes]
    metadata: dict[str, str] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


class Reader(Protocol):
    """A module of this package: whose files it opens, and which errors its library raises on purpose.

    One whose library is no Python package also has `version()` and `LANGUAGE`.
    """

    PACKAGE: str

    def open_file(self, path: str) -> OpenFile:
        """Open a file and list what is inside."""
        ...

    def refusals(self) -> tuple[type[Exception], ...]:
        """Types that the library raises to refuse a file; anything else is an accident of its own."""
        ...


def spelled(dtype: object) -> str:
    """The format's spelling of a framework's dtype, or the framework's own if the format has none."""
    name = str(dtype).rpartition(".")[2]
    return TORCH_SPELLING.get(name, name)
