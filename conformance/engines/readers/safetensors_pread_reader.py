"""The official library's other door: a file read into memory and deserialised from bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conformance.engines.readers.open_file import OpenFile
from conformance.engines.readers.safetensors_mmap_reader import refusals
from conformance.protocol.messages import TensorEntry

__all__ = ["PACKAGE", "open_file", "refusals"]

PACKAGE = "safetensors"


def open_file(path: str) -> OpenFile:
    """Read the whole file and call `deserialize`, which tells no metadata; `safe_open` does."""
    import safetensors

    library: Any = safetensors
    views = dict(library.deserialize(Path(path).read_bytes()))
    entries = [TensorEntry(name, view["dtype"], list(view["shape"])) for name, view in sorted(views.items())]
    with library.safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata() or {})
    return OpenFile(entries, lambda name: bytes(views[name]["data"]), metadata)
