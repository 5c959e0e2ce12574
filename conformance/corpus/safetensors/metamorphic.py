"""One checkpoint in many containers: the same tensors, so that tokens and logits must be bit-identical.

Each variant writes a whole checkpoint directory. Files other than the weights are copied as they are.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import safetensors

from conformance.corpus.safetensors.builder import (
    Document,
    Layout,
    Member,
    Style,
    Tensor,
    as_written,
    document,
    escaped,
    json_string,
    pad,
)

T = TypeVar("T")

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's tensors as the official writer would order them, its metadata, and where the rest lies."""

    directory: Path
    tensors: tuple[Tensor, ...]
    metadata: tuple[tuple[str, str], ...]

    @property
    def layout(self) -> Layout:
        """The plain file."""
        return Layout(self.tensors, metadata=self.metadata or None)


@dataclass(frozen=True, slots=True)
class Variant:
    """One container. `adds_tensors` marks those with a tensor that the model does not have.

    An engine may refuse those by the tensor's name, never by the container.
    """

    name: str
    summary: str
    write: Callable[[Checkpoint, Path], None]
    adds_tensors: bool = False


def read_checkpoint(directory: Path) -> Checkpoint:
    """Read `model.safetensors` of a directory through the official library."""
    path = directory / WEIGHTS
    found: Any = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    tensors = [Tensor(name, v["dtype"], tuple(v["shape"]), bytes(v["data"])) for name, v in found]
    with safetensors.safe_open(path, framework="numpy") as handle:
        metadata = tuple(sorted((handle.metadata() or {}).items()))
    return Checkpoint(directory, as_written(tensors), metadata)


def write_variant(variant: Variant, checkpoint: Checkpoint, target: Path) -> Path:
    """Write a variant into the new directory `target`; returns the directory to load."""
    target.mkdir(parents=True)
    for path in sorted(checkpoint.directory.iterdir()):
        if path.is_file() and path.name not in (WEIGHTS, INDEX):
            shutil.copyfile(path, target / path.name)
    variant.write(checkpoint, target)
    return target


VARIANTS: list[Variant] = []


def _variant(
    name: str, summary: str, *, adds_tensors: bool = False
) -> Callable[[Callable[[Checkpoint, Path], None]], Callable[[Checkpoint, Path], None]]:
    def register(write: Callable[[Checkpoint, Path], None]) -> Callable[[Checkpoint, Path], None]:
        VARIANTS.append(Variant(name, summary, write, adds_tensors))
        return write

    return register


def _one_file(name: str, summary: str, change: Callable[[Checkpoint], Document], *, adds: bool = False) -> None:
    """Register a variant that is one file."""

    def write(checkpoint: Checkpoint, target: Path) -> None:
        (target / WEIGHTS).write_bytes(change(checkpoint).encode())

    VARIANTS.append(Variant(name, summary, write, adds))


def _parts(checkpoint: Checkpoint) -> Document:
    return document(checkpoint.layout)


def _odd_length(rest: int) -> Callable[[Checkpoint], Document]:
    def change(checkpoint: Checkpoint) -> Document:
        parts = _parts(checkpoint)
        text = parts.json().encode()
        return parts.with_header(text + b" " * ((rest - len(text)) % 8))

    return change


def _padded(spaces: int) -> Callable[[Checkpoint], Document]:
    return lambda checkpoint: replace(_parts(checkpoint), padding=b" " * spaces)


def _styled(style: Style) -> Callable[[Checkpoint], Document]:
    return lambda checkpoint: replace(_parts(checkpoint), style=style)


def _header_order(order: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> Callable[[Checkpoint], Document]:
    """List the tensors in another order, and leave their bytes where they are."""

    def change(checkpoint: Checkpoint) -> Document:
        listed = tuple(order(checkpoint.tensors))
        place = {tensor.name: index for index, tensor in enumerate(listed)}
        bytes_as_before = tuple(place[tensor.name] for tensor in checkpoint.tensors)
        return document(replace(checkpoint.layout, tensors=listed, payload_order=bytes_as_before))

    return change


def _payload_order(order: Callable[[Sequence[int]], Sequence[int]]) -> Callable[[Checkpoint], Document]:
    """Move the tensors' bytes, and leave the header's order."""

    def change(checkpoint: Checkpoint) -> Document:
        moved = tuple(order(range(len(checkpoint.tensors))))
        return document(replace(checkpoint.layout, payload_order=moved))

    return change


def _shuffled(items: Sequence[T]) -> Sequence[T]:
    return random.Random(20).sample(items, len(items))  # noqa: S311 -- an order, not a secret


def _members(edit: Callable[[Member], Member]) -> Callable[[Checkpoint], Document]:
    """Rewrite every tensor's member."""

    def change(checkpoint: Checkpoint) -> Document:
        parts = _parts(checkpoint)
        members = tuple(m if isinstance(m.value, str) else edit(m) for m in parts.members)
        return replace(parts, members=members)

    return change


def _fields_reversed(member: Member) -> Member:
    return replace(member, value=member.fields()[::-1])


def _name_escaped(member: Member) -> Member:
    return replace(member, key=f'"{escaped(member.key[1:-1])}"')


def _fields_escaped(member: Member) -> Member:
    return replace(member, value=tuple((f'"{escaped(key[1:-1])}"', value) for key, value in member.fields()))


def _described(
    pairs: Callable[[Checkpoint], Sequence[tuple[str, str]] | None], at: Callable[[int], int] = lambda _count: 0
) -> Callable[[Checkpoint], Document]:
    """Give the file other metadata, at another place in the header."""

    def change(checkpoint: Checkpoint) -> Document:
        found = pairs(checkpoint)
        metadata = None if found is None else tuple(found)
        place = at(len(checkpoint.tensors))
        return document(replace(checkpoint.layout, metadata=metadata, metadata_at=place))

    return change


def _lies(checkpoint: Checkpoint) -> Sequence[tuple[str, str]]:
    """Metadata that says the opposite of the header for every tensor."""
    lie = '{"dtype":"I8","shape":[1],"data_offsets":[0,1]}'
    return [("dtype", "I8"), ("shape", "[1]"), *((tensor.name, lie) for tensor in checkpoint.tensors)]


def _with_neighbour(place: Callable[[int], int], *tensors: Tensor) -> Callable[[Checkpoint], Document]:
    """Put tensors of our own among the model's."""

    def change(checkpoint: Checkpoint) -> Document:
        at = place(len(checkpoint.tensors))
        mixed = (*checkpoint.tensors[:at], *tensors, *checkpoint.tensors[at:])
        return document(replace(checkpoint.layout, tensors=mixed))

    return change


_EMPTY = Tensor("unused.empty", "F32", (0, 64), b"")
_FLAG = Tensor("unused.flag", "U8", (1,), b"\x01")
_PAIRS = (("format", "pt"),)

for _rest in range(1, 8):
    _one_file(f"header-mod8-{_rest}", f"header length is {_rest} modulo 8", _odd_length(_rest))
_one_file("plain", "as the official writer leaves it", _parts)
_one_file("padding-8", "eight more spaces than needed", _padded(8))
_one_file("padding-4096", "a page of padding", _padded(4096))
_one_file("padding-1mib", "a mebibyte of padding", _padded(2**20))
_one_file("json-spaced", "blanks between tokens", _styled(Style(", ", ": ")))
_one_file("json-indented", "indented, with line feeds", _styled(Style(",\n  ", ": ", "\n")))
_one_file("json-crlf", "indented, with carriage returns and tabs", _styled(Style(",\r\n\t", " : ", "\r\n")))
_one_file("names-shuffled", "names shuffled, bytes in place", _header_order(_shuffled))
_one_file("names-reversed", "names reversed, bytes in place", _header_order(lambda ts: ts[::-1]))
_one_file("bytes-reversed", "bytes reversed, names in place", _payload_order(lambda order: order[::-1]))
_one_file("bytes-shuffled", "bytes shuffled, names in place", _payload_order(_shuffled))
_one_file("fields-reversed", "data_offsets, shape, dtype", _members(_fields_reversed))
_one_file("names-escaped", "names in escapes", _members(_name_escaped))
_one_file("fields-escaped", "fields' keys in escapes", _members(_fields_escaped))
_one_file("metadata-absent", "no metadata", _described(lambda _: None))
_one_file("metadata-empty", "empty metadata", _described(lambda _: []))
_one_file("metadata-last", "metadata after the tensors", _described(lambda _: _PAIRS, lambda count: count))
_one_file("metadata-between", "metadata among the tensors", _described(lambda _: _PAIRS, lambda n: n // 2))
_one_file("metadata-unicode", "metadata in other scripts", _described(lambda _: [("größe", "重み 🧮\n\0")]))
_one_file("metadata-lies", "metadata contradicts the header", _described(_lies))
_one_file("metadata-1mib", "a value of a mebibyte", _described(lambda _: [("blob", "x" * 2**20)]))
_one_file("metadata-10000", "ten thousand keys", _described(lambda _: [(f"k{i}", "v") for i in range(10_000)]))
_one_file("empty-first", "an empty tensor first", _with_neighbour(lambda _: 0, _EMPTY), adds=True)
_one_file("empty-between", "an empty tensor between", _with_neighbour(lambda n: n // 2, _EMPTY), adds=True)
_one_file("empty-last", "an empty tensor last", _with_neighbour(lambda n: n, _EMPTY), adds=True)
_one_file("byte-first", "one byte misaligns all", _with_neighbour(lambda _: 0, _FLAG), adds=True)


@_variant("file-symlinked", "the file is a relative symbolic link, as in a hub's cache")
def _symlinked(checkpoint: Checkpoint, target: Path) -> None:
    blob = _blob_store(target) / "weights"
    blob.write_bytes(_parts(checkpoint).encode())
    (target / WEIGHTS).symlink_to(Path("..") / blob.parent.name / blob.name)


@_variant("file-read-only", "the file may only be read")
def _read_only(checkpoint: Checkpoint, target: Path) -> None:
    (target / WEIGHTS).write_bytes(_parts(checkpoint).encode())
    (target / WEIGHTS).chmod(0o444)


@_variant("file-hard-linked", "the file has a second name")
def _hard_linked(checkpoint: Checkpoint, target: Path) -> None:
    blob = _blob_store(target) / "weights"
    blob.write_bytes(_parts(checkpoint).encode())
    (target / WEIGHTS).hardlink_to(blob)


@_variant("file-with-index", "one file, and an index that names it")
def _with_index(checkpoint: Checkpoint, target: Path) -> None:
    (target / WEIGHTS).write_bytes(_parts(checkpoint).encode())
    _write_index(target, dict.fromkeys((tensor.name for tensor in checkpoint.tensors), WEIGHTS))


# --- shards -------------------------------------------------------------------------------------------


def _blob_store(target: Path) -> Path:
    blobs = target.with_name(f"{target.name}.blobs")
    blobs.mkdir()
    return blobs


def _write_index(target: Path, weight_map: dict[str, str], **metadata: int) -> None:
    (target / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2))


def _shard_names(count: int) -> list[str]:
    return [f"model-{at + 1:05d}-of-{count:05d}.safetensors" for at in range(count)]


def _write_shards(
    checkpoint: Checkpoint,
    target: Path,
    names: Sequence[str],
    write: Callable[[Path, bytes], object] = Path.write_bytes,
    encode: Callable[[Layout], bytes] = lambda layout: document(layout).encode(),
) -> None:
    """Deal the tensors out to the shards in turn, and write the index."""
    weight_map: dict[str, str] = {}
    for at, name in enumerate(names):
        dealt = checkpoint.tensors[at :: len(names)]
        write(target / name, encode(Layout(dealt, metadata=_PAIRS)))
        weight_map |= {tensor.name: name for tensor in dealt}
    total = sum(len(tensor.payload) for tensor in checkpoint.tensors)
    _write_index(target, dict(sorted(weight_map.items())), total_size=total)


@_variant("shards-2", "two shards")
def _two_shards(checkpoint: Checkpoint, target: Path) -> None:
    _write_shards(checkpoint, target, _shard_names(2))


@_variant("shards-7", "seven shards")
def _seven_shards(checkpoint: Checkpoint, target: Path) -> None:
    _write_shards(checkpoint, target, _shard_names(7))


@_variant("shards-each", "a shard for each tensor")
def _shard_each(checkpoint: Checkpoint, target: Path) -> None:
    _write_shards(checkpoint, target, _shard_names(len(checkpoint.tensors)))


@_variant("shards-empty", "three shards, and one without tensors that the index does not name")
def _shards_and_empty(checkpoint: Checkpoint, target: Path) -> None:
    names = _shard_names(4)
    _write_shards(checkpoint, target, names[:3])
    (target / names[3]).write_bytes(document(Layout((), metadata=_PAIRS)).encode())


@_variant("shards-odd-names", "shards under names without numbers")
def _odd_names(checkpoint: Checkpoint, target: Path) -> None:
    _write_shards(checkpoint, target, ["zz last.safetensors", "größe.safetensors", "a.b.c.safetensors"])


@_variant("shards-odd-lengths", "shards whose headers have odd lengths")
def _odd_lengths(checkpoint: Checkpoint, target: Path) -> None:
    def encode(layout: Layout) -> bytes:
        parts = document(layout)
        return parts.with_header(pad(parts.json().encode()) + b" " * 3).encode()

    _write_shards(checkpoint, target, _shard_names(3), encode=encode)


@_variant("shards-bytes-reversed", "shards with their bytes in reverse order")
def _shards_reversed(checkpoint: Checkpoint, target: Path) -> None:
    def encode(layout: Layout) -> bytes:
        return document(replace(layout, payload_order=tuple(range(len(layout.tensors)))[::-1])).encode()

    _write_shards(checkpoint, target, _shard_names(2), encode=encode)


@_variant("shards-symlinked", "shards are relative symbolic links out of the directory, as in a hub's cache")
def _shards_symlinked(checkpoint: Checkpoint, target: Path) -> None:
    blobs = _blob_store(target)

    def write(path: Path, data: bytes) -> None:
        (blobs / path.stem).write_bytes(data)
        path.symlink_to(Path("..") / blobs.name / path.stem)

    _write_shards(checkpoint, target, _shard_names(3), write=write)


@_variant("shards-symlinked-absolute", "shards are absolute symbolic links out of the directory")
def _shards_symlinked_absolute(checkpoint: Checkpoint, target: Path) -> None:
    blobs = _blob_store(target).resolve()

    def write(path: Path, data: bytes) -> None:
        (blobs / path.stem).write_bytes(data)
        path.symlink_to(blobs / path.stem)

    _write_shards(checkpoint, target, _shard_names(3), write=write)


@_variant("index-minimal", "an index with a weight map and nothing else, in one line")
def _index_minimal(checkpoint: Checkpoint, target: Path) -> None:
    _write_shards(checkpoint, target, _shard_names(2))
    found = json.loads((target / INDEX).read_text())
    pairs = [(json_string(key), json_string(value)) for key, value in reversed(found["weight_map"].items())]
    (target / INDEX).write_text(Style().object([('"weight_map"', Style().object(pairs))]))
