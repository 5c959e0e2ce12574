"""SafeTensors files from raw parts: JSON text is written by hand so that anything can be said wrongly.

A `Layout` is what a writer means (tensors, order, metadata) and is valid by construction. `document` turns it
into a `Document`, whose members are raw JSON text that a fault can replace piece by piece. `encode` gives bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

PREFIX_BYTES = 8
METADATA = "__metadata__"
NOT_TOLD = -1  # a range that a reader does not report

# In the order of the official writer, which sorts a file's tensors by it, widest first.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
_RANK = {dtype: rank for rank, dtype in enumerate(DTYPE_BITS)}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def byte_count(dtype: str, shape: Sequence[int]) -> int:
    """Bytes that a tensor fills; sub-byte dtypes must fill whole ones.

    Raises:
        ValueError: The shape leaves a byte half filled.
    """
    bits = DTYPE_BITS[dtype] * math.prod(shape)
    if bits % 8:
        raise ValueError(f"{dtype} {list(shape)} does not fill whole bytes")
    return bits // 8


def json_string(text: str, *, ascii_only: bool = False) -> str:
    """A JSON string literal: the shortest legal spelling, or every non-ASCII character escaped."""
    return '"' + "".join(_character(char, ascii_only) for char in text) + '"'


def _character(char: str, ascii_only: bool) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char < " " or (ascii_only and char > "~"):
        return escaped(char)
    return char


def escaped(text: str) -> str:
    """Every character as an escape of four hexadecimal digits, in surrogate pairs beyond the first plane."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as a writer means it: `payload` is little-endian, C order, `byte_count(dtype, shape)` bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    payload: bytes


@dataclass(frozen=True, slots=True)
class TensorContents:
    """What a reader must find: dtype, shape, range in the byte buffer, and the bytes themselves."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    payload: bytes

    @property
    def end(self) -> int:
        """One past the last byte, relative to the byte buffer."""
        return self.begin + len(self.payload)


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything a file says: tensors by name, and the metadata (absent is empty)."""

    tensors: Mapping[str, TensorContents]
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """A valid file before it is written.

    `payload_order` gives the order of the tensors' bytes in the buffer as indices into `tensors`; the header
    lists them in the order of `tensors`. `metadata_at` is the metadata's place among the header's members.
    """

    tensors: tuple[Tensor, ...]
    payload_order: tuple[int, ...] | None = None
    metadata: tuple[tuple[str, str], ...] | None = None
    metadata_at: int = 0

    def ordered(self) -> tuple[Tensor, ...]:
        """Tensors in the order of their bytes."""
        order = self.payload_order if self.payload_order is not None else range(len(self.tensors))
        return tuple(self.tensors[index] for index in order)

    def contents(self) -> Contents:
        """What a right reader finds in the file."""
        begins: dict[str, int] = {}
        cursor = 0
        for tensor in self.ordered():
            begins[tensor.name] = cursor
            cursor += len(tensor.payload)
        return Contents(
            {t.name: TensorContents(t.dtype, t.shape, begins[t.name], t.payload) for t in self.tensors},
            dict(self.metadata or ()),
        )


def as_written(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tensors in the official writer's order: by dtype, widest first, then by name."""
    return tuple(sorted(tensors, key=lambda t: (-_RANK[t.dtype], t.name)))


Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the header as raw JSON text; `value` is text, or an entry's fields as (key, value) texts."""

    key: str
    value: str | Fields

    def fields(self) -> Fields:
        """The fields of a tensor entry.

        Raises:
            TypeError: The member is not a tensor entry.
        """
        if isinstance(self.value, str):
            raise TypeError(f"{self.key} is not a tensor entry")
        return self.value

    def with_field(self, name: str, text: str) -> Member:
        """The same entry with one field's value replaced by `text`."""
        key = json_string(name)
        return replace(self, value=tuple((k, text if k == key else v) for k, v in self.fields()))


@dataclass(frozen=True, slots=True)
class Style:
    """How the JSON text is spaced: separators, and what follows an opening and precedes a closing brace."""

    item: str = ","
    colon: str = ":"
    inside: str = ""

    def object(self, pairs: Sequence[tuple[str, str]]) -> str:
        """An object from raw key and value texts."""
        body = self.item.join(f"{key}{self.colon}{value}" for key, value in pairs)
        return f"{{{self.inside}{body}{self.inside}}}"


@dataclass(frozen=True, slots=True)
class Document:
    """A file in raw parts.

    The header is `members` as JSON text, then `padding`, then spaces up to a multiple of `multiple` (0 for none);
    `header` replaces all that. `length` replaces the true header length, and `prefix` the eight bytes themselves.
    """

    members: tuple[Member, ...]
    buffer: bytes
    style: Style = Style()
    padding: bytes = b""
    multiple: int = 8
    header: bytes | None = None
    length: int | None = None
    prefix: bytes | None = None

    def json(self) -> str:
        """The header's JSON text without padding."""
        style = self.style
        return style.object(
            [(m.key, m.value if isinstance(m.value, str) else style.object(m.value)) for m in self.members]
        )

    def header_bytes(self) -> bytes:
        """The header with its padding."""
        if self.header is not None:
            return self.header
        text = self.json().encode("utf-8") + self.padding
        return text + b" " * (-len(text) % self.multiple if self.multiple else 0)

    def encode(self) -> bytes:
        """The whole file."""
        header = self.header_bytes()
        length = len(header) if self.length is None else self.length
        prefix = length.to_bytes(PREFIX_BYTES, "little") if self.prefix is None else self.prefix
        return prefix + header + self.buffer

    def with_header(self, header: bytes | str) -> Document:
        """The same file around another header, given whole; text gets the usual padding."""
        if isinstance(header, str):
            return replace(self, header=pad(header.encode("utf-8")))
        return replace(self, header=header)

    def tensors(self) -> list[int]:
        """Indices of the members that are tensor entries, in header order."""
        return [index for index, member in enumerate(self.members) if not isinstance(member.value, str)]

    def with_member(self, index: int, *members: Member) -> Document:
        """The same file with member `index` replaced by `members` (none removes it)."""
        return replace(self, members=(*self.members[:index], *members, *self.members[index + 1 :]))


def pad(header: bytes) -> bytes:
    """A header with spaces up to a multiple of eight, as the official writer leaves it."""
    return header + b" " * (-len(header) % 8)


def entry(name: str, contents: TensorContents) -> Member:
    """A tensor's member with its fields in the official writer's order."""
    shape = "[" + ",".join(map(str, contents.shape)) + "]"
    fields = (
        ('"dtype"', json_string(contents.dtype)),
        ('"shape"', shape),
        ('"data_offsets"', f"[{contents.begin},{contents.end}]"),
    )
    return Member(json_string(name), fields)


def string_map(pairs: Sequence[tuple[str, str]]) -> str:
    """A JSON object from strings to strings; keys may repeat."""
    return Style().object([(json_string(key), json_string(value)) for key, value in pairs])


def document(layout: Layout) -> Document:
    """The raw parts of a valid file."""
    contents = layout.contents()
    members = [entry(tensor.name, contents.tensors[tensor.name]) for tensor in layout.tensors]
    if layout.metadata is not None:
        members.insert(layout.metadata_at, Member(json_string(METADATA), string_map(layout.metadata)))
    return Document(tuple(members), b"".join(tensor.payload for tensor in layout.ordered()))
