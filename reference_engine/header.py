"""SafeTensors header: every written rule of the format, checked before a byte of data is trusted.

Layout of a file: u64 little-endian N, N bytes of JSON, then the data buffer. Source of the rules: the
"Format" section of the safetensors README. Where that is stricter than the official library (duplicate
names, entries written as lists), this parser follows the text.

A header is hostile input of up to 100 MB, so it is walked entry by entry with the C scanners of `json`:
nesting is bounded before anything recursive runs, and no tree of the whole header is ever built.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from reference_engine.errors import InvalidFile, quote

MAX_HEADER_BYTES = 100_000_000
LENGTH_BYTES = 8
U64_MAX = 2**64 - 1

DTYPE_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
ENTRY_FIELDS = frozenset({"dtype", "shape", "data_offsets"})

# An object that holds nothing deeper than flat lists of numbers; possessive, so that it takes linear time.
_FLAT_OBJECT = re.compile(r'\{(?:[^{}\[\]]++|\[[^{}\[\]"]*+\])*+\}')
_WS = r"[ \t\n\r]*+"
_TEXT = r'"((?:[^"\\\x00-\x1f]++|\\.)*+)"'
_PAIR = re.compile(_WS + _TEXT + _WS + ":" + _WS + _TEXT + _WS + r"([,}])")
_KEY = re.compile(_WS + _TEXT + _WS + ":" + _WS)
_OPEN = re.compile(_WS + r"\{" + _WS + r"(\})?")
_NEXT = re.compile(_WS + r"([,}])")
_scan_value = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


class TensorEntry(NamedTuple):
    """One tensor of a file; `begin` and `end` are byte offsets into the data buffer."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Length of the tensor's data in bytes."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header: tensors in the header's own order, metadata, and where the data buffer starts."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]
    data_start: int


def header_length(path: str, prefix: bytes | bytearray, file_size: int) -> int:
    """Length N of the JSON from a file's first 8 bytes.

    Raises:
        InvalidFile: The file is shorter than 8 bytes, or N exceeds the limit or the file.
    """
    if len(prefix) < LENGTH_BYTES:
        raise InvalidFile(path, f"{file_size} bytes are too few to hold a header length")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise InvalidFile(path, f"header length {length} exceeds the limit of {MAX_HEADER_BYTES} bytes")
    if LENGTH_BYTES + length > file_size:
        raise InvalidFile(path, f"header length {length} exceeds the file of {file_size} bytes")
    return length


def parse_header(path: str, raw: bytes | bytearray, file_size: int) -> Header:
    """Parse and check the JSON of a header, and that its tensors cover the rest of the file exactly.

    Args:
        path: Named in errors.
        raw: The N bytes after the length.
        file_size: Size of the whole file in bytes.

    Raises:
        InvalidFile: Any rule of the format is broken.
    """
    if not raw.startswith(b"{"):
        raise InvalidFile(path, "the header does not begin with '{'")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidFile(path, f"the header is not UTF-8 at byte {error.start}") from None
    with _no_collector():
        tensors, metadata = _Walk(path, text).header()
    data_start = LENGTH_BYTES + len(raw)
    _check_coverage(path, list(tensors.values()), file_size - data_start)
    return Header(tensors, metadata, data_start)


def _check_coverage(path: str, entries: list[TensorEntry], buffer_bytes: int) -> None:
    """Every byte of the buffer belongs to exactly one tensor."""
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    covered = 0
    for entry in entries:
        if entry.begin != covered:
            kind = "overlaps the tensor before it" if entry.begin < covered else "leaves a hole before it"
            cause = f"tensor {quote(entry.name)} begins at {entry.begin} and {kind}, which ends at {covered}"
            raise InvalidFile(path, cause)
        covered = entry.end
    if covered != buffer_bytes:
        raise InvalidFile(path, f"the tensors end at byte {covered}, the data buffer has {buffer_bytes} bytes")


@contextmanager
def _no_collector() -> Iterator[None]:
    """Without the cycle collector, which would walk millions of entries again and again and find no cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Walk:
    """One pass over the text of a header with a cursor."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.at = 0

    def header(self) -> tuple[dict[str, TensorEntry], dict[str, str]]:
        tensors: dict[str, TensorEntry] = {}
        metadata: dict[str, str] | None = None
        more = self.opens()
        while more:
            name = self.plain(self.take(_KEY, "a name and ':'")[1])
            if name in tensors or (name == "__metadata__" and metadata is not None):
                self.fail(f"the name {quote(name)} is given twice")
            if name == "__metadata__":
                metadata = self.metadata()
            else:
                tensors[name] = self.entry(name)
            more = self.take(_NEXT, "',' or '}'")[1] == ","
        if self.text[self.at :].strip(" "):
            self.fail("something other than spaces follows the JSON")
        return tensors, metadata or {}

    def metadata(self) -> dict[str, str]:
        # MLX writes null for "no metadata", and the official library reads it.
        if self.text.startswith("null", self.at):
            self.at += len("null")
            return {}
        found: dict[str, str] = {}
        more = self.opens()
        while more:
            key, value, mark = self.take(_PAIR, "a pair of strings in __metadata__").groups()
            key = self.plain(key)
            if key in found:
                self.fail(f"metadata key {quote(key)} is given twice")
            found[key] = self.plain(value)
            more = mark == ","
        return found

    def opens(self) -> bool:
        """Enter the object at the cursor; False if it is empty, and then the cursor is past it."""
        return self.take(_OPEN, "'{'")[1] is None

    def entry(self, name: str) -> TensorEntry:
        match = _FLAT_OBJECT.match(self.text, self.at)
        # Three members have three colons and no valid dtype has one: what has more is refused before it is
        # built, and a dictionary of three keys has none twice.
        if match is None or self.text.count(":", self.at, match.end()) != len(ENTRY_FIELDS):
            self.fail(f"tensor {quote(name)} is not a flat object of dtype, shape and data_offsets, each once")
        try:
            fields, self.at = _scan_value(self.text, self.at)
        except (ValueError, StopIteration):
            self.fail(f"tensor {quote(name)} is not valid JSON")
        if fields.keys() != ENTRY_FIELDS:
            self.fail(f"tensor {quote(name)} must have dtype, shape and data_offsets, each exactly once")
        return self.checked(name, fields["dtype"], fields["shape"], fields["data_offsets"])

    def checked(self, name: str, dtype: Any, shape: Any, offsets: Any) -> TensorEntry:
        bits = DTYPE_BITS.get(dtype) if type(dtype) is str else None
        if bits is None:
            self.fail(f"tensor {quote(name)} has unknown dtype {quote(str(dtype))}")
        if type(shape) is not list or type(offsets) is not list or len(offsets) != 2:  # noqa: PLR2004
            self.fail(f"tensor {quote(name)}: shape must be a list, data_offsets a list of two")
        begin, end = offsets
        if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= U64_MAX:
            self.fail(f"tensor {quote(name)} has data_offsets {_brief(offsets)}, not 0 <= begin <= end")
        elements = 1
        for size in shape:
            if type(size) is not int or not 0 <= size <= U64_MAX:
                self.fail(f"tensor {quote(name)} has dimension {quote(str(size))}, not an unsigned 64-bit integer")
            elements *= size
            if elements > U64_MAX:
                self.fail(f"tensor {quote(name)}: the product of shape {_brief(shape)} overflows 64 bits")
        size_bits = elements * bits
        if size_bits > U64_MAX or size_bits != (end - begin) * 8:
            cause = f"of {dtype} {_brief(shape)} needs {size_bits} bits, its offsets span {end - begin} bytes"
            self.fail(f"tensor {quote(name)} {cause}")
        return TensorEntry(name, dtype, tuple(shape), begin, end)

    def take(self, pattern: re.Pattern[str], wanted: str) -> re.Match[str]:
        match = pattern.match(self.text, self.at)
        if match is None:
            self.fail(f"expected {wanted} at character {self.at} of the header")
        self.at = match.end()
        return match

    def plain(self, text: str) -> str:
        """Text between two quotes, with its JSON escapes resolved."""
        if "\\" not in text:
            return text
        try:
            value = str(json.loads(f'"{text}"'))
            # JSON escapes can spell lone surrogates, which no UTF-8 text holds.
            value.encode()
        except ValueError:
            self.fail(f"invalid escape in the string before character {self.at} of the header")
        return value

    def fail(self, cause: str) -> NoReturn:
        raise InvalidFile(self.path, cause)


def _brief(values: list[Any]) -> str:
    shown = ", ".join(quote(str(value)) if type(value) is str else str(value)[:24] for value in values[:8])
    return f"[{shown}, …]" if len(values) > 8 else f"[{shown}]"  # noqa: PLR2004
