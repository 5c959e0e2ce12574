"""runai-model-streamer, reading from the file system into host memory; it hands out no metadata."""

from __future__ import annotations

from conformance.engines.readers.open_file import OpenFile
from conformance.engines.readers.torch_bytes import bytes_of, described

PACKAGE = "runai-model-streamer"


def open_file(path: str) -> OpenFile:
    """Stream every tensor of the file, and keep copies: its buffer is used again."""
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_file(path)
        tensors = {name: tensor.clone() for name, tensor in streamer.get_tensors()}
    entries = [described(name, one) for name, one in sorted(tensors.items())]
    return OpenFile(entries, lambda name: bytes_of(tensors[name]))


def refusals() -> tuple[type[Exception], ...]:
    """What it raises for files that it finds wrong."""
    return (ValueError, RuntimeError)
