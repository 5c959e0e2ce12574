"""Valid and malformed files that are too big to keep in memory: sparse where they can be, one of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.corpus.safetensors.builder import (
    PREFIX_BYTES,
    Contents,
    Document,
    Layout,
    Member,
    Tensor,
    TensorContents,
    byte_count,
    document,
    entry,
    json_string,
)
from conformance.corpus.safetensors.rules import Demand, Rule

_LIMIT = 100_000_000
_CHUNK = 2**20
_MARK = b"HEAVYHEAVYHEAVY!"


@dataclass(frozen=True, slots=True)
class HeavyFile:
    """One heavy file. `write` makes it and tells the contents of the tensors worth reading, and only of those.

    `disk_bytes` is what it really takes; a file system without holes takes `file_bytes`.
    """

    name: str
    row: str
    demand: Demand
    rule: Rule
    summary: str
    file_bytes: int
    disk_bytes: int
    write: Callable[[Path], Contents]


def sparse(tensors: Sequence[tuple[str, str, tuple[int, ...]]], marked: Sequence[str]) -> Callable[[Path], Contents]:
    """A file of zeros that are never written, but for the marked tensors of 16 bytes."""

    def write(path: Path) -> Contents:
        members: list[Member] = []
        found: dict[str, TensorContents] = {}
        cursor = 0
        for name, dtype, shape in tensors:
            size = byte_count(dtype, shape)
            members.append(_member(name, dtype, shape, cursor, size))
            if name in marked:
                found[name] = TensorContents(dtype, shape, cursor, _MARK)
            cursor += size
        head = Document(tuple(members), b"").encode()
        _write_sparse(path, head, cursor, found)
        return Contents(found)

    return write


def _member(name: str, dtype: str, shape: tuple[int, ...], begin: int, size: int) -> Member:
    fields = (
        ('"dtype"', json_string(dtype)),
        ('"shape"', "[" + ",".join(map(str, shape)) + "]"),
        ('"data_offsets"', f"[{begin},{begin + size}]"),
    )
    return Member(json_string(name), fields)


def _write_sparse(path: Path, head: bytes, buffer: int, marked: Mapping[str, TensorContents]) -> None:
    with path.open("wb") as stream:
        stream.write(head)
        for tensor in marked.values():
            stream.seek(len(head) + tensor.begin)
            stream.write(tensor.payload)
        stream.truncate(len(head) + buffer)


def _header_of(length: int) -> Callable[[Path], Contents]:
    """A small file whose header is padded with spaces to exactly `length` bytes."""

    def write(path: Path) -> Contents:
        layout = Layout((Tensor("w", "F32", (4,), _MARK),))
        parts = document(layout)
        text = parts.json().encode()
        with path.open("wb") as stream:
            stream.write(length.to_bytes(PREFIX_BYTES, "little") + text)
            left = length - len(text)
            while left:
                left -= stream.write(b" " * min(left, _CHUNK))
            stream.write(parts.buffer)
        return layout.contents()

    return write


def _many(count: int) -> Callable[[Path], Contents]:
    """A file of `count` tensors of four bytes each, every one with its own number."""

    def write(path: Path) -> Contents:
        told = {f"t.{at}": TensorContents("F32", (1,), 4 * at, at.to_bytes(4, "little")) for at in range(count)}
        buffer = b"".join(tensor.payload for tensor in told.values())
        path.write_bytes(Document(tuple(entry(n, t) for n, t in told.items()), buffer).encode())
        return Contents({f"t.{at}": told[f"t.{at}"] for at in (0, 1, count // 2, count - 1)})

    return write


_BEYOND = 2**32 + 1
_GIANT_ROWS, _GIANT_COLUMNS = 65_536, 32_769

HEAVY: tuple[HeavyFile, ...] = (
    HeavyFile(
        "heavy.offset_above_4gib",
        "F-PARSE-036",
        Demand.ACCEPT,
        Rule.RELATIVE,
        "A tensor lies beyond 4 GiB, at an odd offset.",
        _BEYOND + 32,
        8192,
        sparse(
            [("head", "F32", (4,)), ("bulk", "U8", (_BEYOND,)), ("tail", "F32", (4,))],
            ["head", "tail"],
        ),
    ),
    HeavyFile(
        "heavy.elements_above_31_bits",
        "F-PARSE-039",
        Demand.ACCEPT,
        Rule.RANK,
        "A tensor has more than 2**31 elements.",
        _GIANT_ROWS * _GIANT_COLUMNS + 16,
        8192,
        sparse([("bulk", "U8", (_GIANT_ROWS, _GIANT_COLUMNS)), ("tail", "F32", (4,))], ["tail"]),
    ),
    HeavyFile(
        "heavy.many_tensors",
        "F-PARSE-036",
        Demand.ACCEPT,
        Rule.ORDER,
        "Fifty thousand tensors.",
        4_000_000,
        4_000_000,
        _many(50_000),
    ),
    HeavyFile(
        "heavy.header_30mb",
        "F-PARSE-037",
        Demand.ACCEPT,
        Rule.LIMIT,
        "A header of 30 million bytes, nearly all padding.",
        30_000_024,
        30_000_024,
        _header_of(30_000_000),
    ),
    HeavyFile(
        "heavy.header_at_limit",
        "F-PARSE-037",
        Demand.EITHER,
        Rule.LIMIT,
        "A header of exactly the limit: readers differ on whether the limit itself is allowed.",
        _LIMIT + 24,
        _LIMIT + 24,
        _header_of(_LIMIT),
    ),
    HeavyFile(
        "heavy.header_over_limit",
        "F-PARSE-042",
        Demand.REJECT,
        Rule.LIMIT,
        "A whole header one byte over the limit.",
        _LIMIT + 25,
        _LIMIT + 25,
        _header_of(_LIMIT + 1),
    ),
)
