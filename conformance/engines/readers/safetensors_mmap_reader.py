"""The official library, which maps the file and hands out torch tensors."""

from __future__ import annotations

from typing import Any

from conformance.engines.readers.open_file import OpenFile
from conformance.engines.readers.torch_bytes import bytes_of
from conformance.protocol.messages import TensorEntry

PACKAGE = "safetensors"


def open_file(path: str) -> OpenFile:
    """Open with `safe_open`, lazily."""
    from safetensors import safe_open

    file: Any = safe_open(path, framework="pt", device="cpu")
    slices = {name: file.get_slice(name) for name in sorted(file.keys())}
    entries = [TensorEntry(name, one.get_dtype(), list(one.get_shape())) for name, one in slices.items()]
    return OpenFile(entries, lambda name: bytes_of(file.get_tensor(name)), dict(file.metadata() or {}))


def refusals() -> tuple[type[Exception], ...]:
    """The library's one error type."""
    from safetensors import SafetensorError

    return (SafetensorError,)
