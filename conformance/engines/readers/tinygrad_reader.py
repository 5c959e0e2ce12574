"""tinygrad's `safe_load`, on the disk device."""

from __future__ import annotations

import json
from pathlib import Path

from conformance.engines.readers.open_file import OpenFile
from conformance.protocol.messages import TensorEntry

PACKAGE = "tinygrad"


def open_file(path: str) -> OpenFile:
    """Load with `safe_load`; dtypes are told in the format's spelling through the library's own table."""
    from tinygrad import dtypes
    from tinygrad.nn.state import safe_dtypes, safe_load, safe_load_metadata

    spelling = {dtype: name for name, dtype in safe_dtypes.items()}
    tensors = safe_load(Path(path))
    _, _, header = safe_load_metadata(Path(path))
    entries = [
        TensorEntry(name, spelling[one.dtype], [int(size) for size in one.shape])
        for name, one in sorted(tensors.items())
    ]

    def read(name: str) -> bytes:
        tensor = tensors[name]
        return bytes(tensor.flatten().bitcast(dtypes.uint8).data()) if tensor.numel() else b""

    # It hands out whatever JSON is there; the protocol has strings.
    told = dict(header.get("__metadata__") or {})
    return OpenFile(entries, read, {key: v if isinstance(v, str) else json.dumps(v) for key, v in told.items()})


def refusals() -> tuple[type[Exception], ...]:
    """It has no error of its own: only the JSON reader's, and those of its tensors, are about the file."""
    return (json.JSONDecodeError, RuntimeError)
