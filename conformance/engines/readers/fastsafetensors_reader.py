"""fastsafetensors on the host, without GPUDirect Storage."""

from __future__ import annotations

from conformance.engines.readers.open_file import OpenFile
from conformance.engines.readers.torch_bytes import bytes_of, described

PACKAGE = "fastsafetensors"


def open_file(path: str) -> OpenFile:
    """Load the file with `fastsafe_open`; the library refuses with plain `Exception`s."""
    from fastsafetensors import fastsafe_open

    file = fastsafe_open([path], framework="pt", device="cpu", nogds=True)
    tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    entries = [described(name, one) for name, one in tensors.items()]
    metadata = dict(file.metadata()[path] or {})
    return OpenFile(entries, lambda name: bytes_of(tensors[name]), metadata, lambda: file.__exit__(None, None, None))


def refusals() -> tuple[type[Exception], ...]:
    """It raises bare exceptions; those of Python's own types within it are accidents."""
    return (Exception,)
