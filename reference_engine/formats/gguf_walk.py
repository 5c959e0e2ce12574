"""The header of a GGUF file, walked once within bounds: counts and lengths in it are claims, not facts.

Layout (ggml's docs/gguf.md, little-endian): "GGUF", u32 version, u64 tensor count, u64 pair count, the pairs
(string key, u32 type, value), the tensors (string name, u32 dimensions, u64 each, fastest first, u32 type,
u64 offset into the data), padding to the alignment, data. A string is u64 length and UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from reference_engine.errors import InvalidFile, quote

VERSIONS = (2, 3)
MAX_HEADER_BYTES = 64 << 20
MAX_PAIRS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_STRINGS = 1 << 21
MAX_DIMENSIONS = 4
BLOCK_BYTES = 1 << 20
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16
I64_MAX = 2**63 - 1
BOOL, STRING, ARRAY = 7, 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "B", 10: "Q", 11: "q", 12: "d"}


class GgufTensor(NamedTuple):
    """One tensor as the header describes it; `shape` is outermost first, `offset` counts from the data."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Pairs by key, tensors in the file's order, the alignment, and where the data starts."""

    fields: dict[str, Any]
    tensors: list[GgufTensor]
    alignment: int
    data_start: int


def walk_header(path: str, size: int, read: Callable[[int, memoryview], None]) -> GgufHeader:
    """Read and check a header.

    Args:
        path: Named in errors.
        size: Bytes of the whole file.
        read: Fills a view with the file's bytes from an offset.

    Raises:
        InvalidFile: A rule of the format is broken, or a bound of this reader is passed.
    """
    return _Walk(path, size, read).header()


class _Walk:
    def __init__(self, path: str, size: int, read: Callable[[int, memoryview], None]) -> None:
        self.path = path
        self.size = size
        self.read = read
        self.data = bytearray()
        self.at = 0
        self.strings = 0

    def header(self) -> GgufHeader:
        if self.data[: self.claim(4, "the magic") + 4] != b"GGUF":
            self.fail("it does not begin with GGUF")
        version = self.number("I", "the version")
        if version not in VERSIONS:
            self.fail(f"version {version} is neither 2 nor 3 in little-endian order")
        tensor_count, pair_count = self.number("Q", "the tensor count"), self.number("Q", "the pair count")
        if tensor_count > MAX_TENSORS or pair_count > MAX_PAIRS:
            self.fail(f"{tensor_count} tensors and {pair_count} pairs exceed {MAX_TENSORS} and {MAX_PAIRS}")
        fields: dict[str, Any] = {}
        for _ in range(pair_count):
            key = self.string("a key")
            if key in fields:
                self.fail(f"key {quote(key)} is given twice")
            fields[key] = self.value(self.number("I", f"the type of {quote(key)}"), key)
        tensors = [self.tensor() for _ in range(tensor_count)]
        alignment = fields.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):  # noqa: PLR2004
            self.fail(f"general.alignment {quote(str(alignment))} is no power of two from 8 to {MAX_ALIGNMENT}")
        return GgufHeader(fields, tensors, alignment, self.at + -self.at % alignment)

    def value(self, kind: int, key: str) -> Any:
        if kind == STRING:
            return self.string(f"the value of {quote(key)}")
        if kind == ARRAY:
            return self.array(key)
        if kind not in SCALARS:
            self.fail(f"key {quote(key)} has unknown type {kind}")
        value = self.number(SCALARS[kind], f"the value of {quote(key)}")
        if kind != BOOL:
            return value
        if value > 1:
            self.fail(f"key {quote(key)} is a boolean of {value}")
        return bool(value)

    def array(self, key: str) -> Any:
        """A list of strings, or a view of numbers that is not copied into a list."""
        kind, count = self.number("I", f"the type of {quote(key)}"), self.number("Q", f"the length of {quote(key)}")
        if kind == STRING:
            self.strings += count
            if self.strings > MAX_STRINGS:
                self.fail(f"array {quote(key)} of {count} strings exceeds the limit of {MAX_STRINGS} in all")
            return [self.string(f"array {quote(key)}") for _ in range(count)]
        if kind not in SCALARS:
            self.fail(f"array {quote(key)} has element type {kind}, which is unknown or nested")
        width = struct.calcsize(SCALARS[kind])
        begin = self.claim(count * width, f"array {quote(key)}")
        return memoryview(bytes(self.data[begin : self.at])).cast(SCALARS[kind])  # type: ignore[call-overload]

    def tensor(self) -> GgufTensor:
        name = self.string("a tensor's name")
        dimensions = self.number("I", f"tensor {quote(name)}")
        if dimensions > MAX_DIMENSIONS:
            self.fail(f"tensor {quote(name)} has {dimensions} dimensions, more than {MAX_DIMENSIONS}")
        shape = tuple(self.number("Q", f"tensor {quote(name)}") for _ in range(dimensions))[::-1]
        elements = 1
        for length in shape:
            elements *= length
            if elements > I64_MAX:
                self.fail(f"tensor {quote(name)}: the product of its dimensions overflows")
        kind = self.number("I", f"tensor {quote(name)}")
        return GgufTensor(name, shape, kind, self.number("Q", f"tensor {quote(name)}"))

    def string(self, what: str) -> str:
        length = self.number("Q", what)
        begin = self.claim(length, what)
        try:
            return self.data[begin : self.at].decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8")

    def number(self, code: str, what: str) -> Any:
        code = f"<{code}"
        return struct.unpack_from(code, self.data, self.claim(struct.calcsize(code), what))[0]

    def claim(self, count: int, what: str) -> int:
        """Move past `count` bytes, which are then in `data`, and return where they begin."""
        begin, end = self.at, self.at + count
        if end > self.size:
            self.fail(f"the file of {self.size} bytes ends inside {what}")
        if end > MAX_HEADER_BYTES:
            self.fail(f"the header exceeds the limit of {MAX_HEADER_BYTES} bytes inside {what}")
        have = len(self.data)
        if end > have:
            block = bytearray(min(self.size, max(end, have + BLOCK_BYTES)) - have)
            self.read(have, memoryview(block))
            self.data += block
        self.at = end
        return begin

    def fail(self, cause: str) -> NoReturn:
        raise InvalidFile(self.path, cause, "GGUF")
