"""The SafeTensors reader of `gguf`, with which llama.cpp's converter opens checkpoints; it hands out no metadata."""

from __future__ import annotations

from pathlib import Path

from conformance.engines.readers.open_file import OpenFile
from conformance.protocol.messages import TensorEntry

PACKAGE = "gguf"


def open_file(path: str) -> OpenFile:
    """List with `SafetensorsLocal`; a read maps the tensor's range."""
    from gguf.utility import SafetensorsLocal

    tensors = SafetensorsLocal(Path(path)).tensors
    entries = [TensorEntry(name, one.dtype, list(one.shape)) for name, one in tensors.items()]
    return OpenFile(entries, lambda name: tensors[name].mmap_bytes().tobytes())


def refusals() -> tuple[type[Exception], ...]:
    """What it raises for files that it finds wrong."""
    return (ValueError,)
