"""MLX on the CPU: its C++ reader of SafeTensors files."""

from __future__ import annotations

from conformance.engines.readers.open_file import OpenFile, spelled
from conformance.protocol.messages import TensorEntry

PACKAGE = "mlx"


def open_file(path: str) -> OpenFile:
    """Load with `mlx.core.load`, which reads lazily."""
    import mlx.core as mx

    arrays, metadata = mx.load(path, format="safetensors", return_metadata=True)
    entries = [TensorEntry(name, spelled(one.dtype), list(one.shape)) for name, one in sorted(arrays.items())]

    def read(name: str) -> bytes:
        flat = arrays[name].reshape(-1)
        return bytes(memoryview(flat.view(mx.uint8))) if flat.size else b""

    return OpenFile(entries, read, dict(metadata))


def refusals() -> tuple[type[Exception], ...]:
    """C++ exceptions come as these."""
    return (RuntimeError, ValueError)
