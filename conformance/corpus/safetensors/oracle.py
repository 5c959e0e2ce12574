"""The official library as the second oracle beside the written format, and how contents are compared."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors

from conformance.corpus.safetensors.builder import NOT_TOLD, Contents, TensorContents


@dataclass(frozen=True, slots=True)
class OfficialAnswer:
    """What the official library says to a file: its contents, or why it refused."""

    contents: Contents | None
    refusal: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the library read the file."""
        return self.contents is not None


def official(data: bytes) -> OfficialAnswer:
    """Ask the official library about a file's bytes; ranges are not among its answers."""
    try:
        found: Any = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as refusal:
        return OfficialAnswer(None, str(refusal))
    tensors = {
        name: TensorContents(view["dtype"], tuple(view["shape"]), NOT_TOLD, bytes(view["data"])) for name, view in found
    }
    return OfficialAnswer(Contents(tensors, _metadata(data)))


def _metadata(data: bytes) -> dict[str, str]:
    """The library tells metadata only of files that it opens by name."""
    with tempfile.TemporaryDirectory(prefix="falsify-oracle-") as directory:
        path = Path(directory) / "file.safetensors"
        path.write_bytes(data)
        with safetensors.safe_open(path, framework="numpy") as handle:
            return dict(handle.metadata() or {})


def without_ranges(contents: Contents) -> Contents:
    """A reading without ranges, to be compared with the official library's, which tells none."""
    tensors = {name: replace(tensor, begin=NOT_TOLD) for name, tensor in contents.tensors.items()}
    return replace(contents, tensors=tensors)


def first_difference(expected: Contents, observed: Contents) -> str:
    """The first way in which two readings of a file differ, in words; empty where they agree.

    A reader that does not tell ranges is not asked for them.
    """
    if missing := sorted(expected.tensors.keys() - observed.tensors.keys()):
        return f"tensor {_quoted(missing[0])} is missing"
    if extra := sorted(observed.tensors.keys() - expected.tensors.keys()):
        return f"tensor {_quoted(extra[0])} is not in the file"
    for name, right in expected.tensors.items():
        if found := _tensor_difference(right, observed.tensors[name]):
            return f"tensor {_quoted(name)}: {found}"
    if dict(expected.metadata) != dict(observed.metadata):
        return _metadata_difference(expected, observed)
    return ""


def _tensor_difference(right: TensorContents, seen: TensorContents) -> str:
    if seen.dtype != right.dtype:
        return f"dtype {_quoted(seen.dtype)}, not {right.dtype}"
    if seen.shape != right.shape:
        return f"shape {list(seen.shape)}, not {list(right.shape)}"
    if seen.begin not in (NOT_TOLD, right.begin):
        return f"begin {seen.begin}, not {right.begin}"
    if len(seen.payload) != len(right.payload):
        return f"{len(seen.payload)} bytes, not {len(right.payload)}"
    if seen.payload != right.payload:
        at = next(i for i, (a, b) in enumerate(zip(seen.payload, right.payload, strict=True)) if a != b)
        return f"byte {at} is 0x{seen.payload[at]:02x}, not 0x{right.payload[at]:02x}"
    return ""


def _metadata_difference(expected: Contents, observed: Contents) -> str:
    for key in sorted(expected.metadata.keys() | observed.metadata.keys()):
        right, seen = expected.metadata.get(key), observed.metadata.get(key)
        if right != seen:
            return f"metadata {_quoted(key)} is {_quoted(seen)}, not {_quoted(right)}"
    return ""


def _quoted(text: object, limit: int = 60) -> str:
    spelled = repr(text)
    return spelled if len(spelled) <= limit else f"{spelled[:limit]}…"
