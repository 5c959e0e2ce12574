"""Tensors beside the protocol: raw little-endian, C-ordered files in the run directory, checked by length and hash.

Files that the other side wrote are read, never mapped: cut short while in use, a mapping would kill the reader.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.protocol.messages import TensorData

if TYPE_CHECKING:
    import numpy as np

MAX_TENSOR_BYTES = 64 << 30
READ_BYTES = 64 << 20
NUMPY_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "U8": "u1", "I32": "<i4", "I64": "<i8"}


class BrokenTensor(Exception):
    """A tensor file is not what its message says, or lies outside the run directory."""

    def __init__(self, path: str, cause: str) -> None:
        self.path, self.cause = path, cause
        super().__init__(f"tensor file {path}: {cause}")


def write_tensor(
    directory: str | Path, dtype: str, shape: Sequence[int], payload: bytes | bytearray | memoryview
) -> TensorData:
    """Write a tensor to a new file and describe it.

    Args:
        directory: The run directory, or one inside it.
        dtype: In the format's spelling.
        shape: Sizes of the dimensions.
        payload: The raw bytes.

    Returns:
        The message, with the file's absolute path.
    """
    path = Path(directory).resolve() / f"{uuid.uuid4().hex}.tensor"
    with path.open("xb") as file:
        file.write(payload)
    return TensorData(str(path), dtype, list(shape), len(payload), hashlib.sha256(payload).hexdigest())


def read_tensor(run_dir: str | Path, data: TensorData) -> bytearray:
    """Read the bytes of a tensor file and check them.

    Args:
        run_dir: The only directory tensors may lie in; relative paths start there.
        data: The message that names the file.

    Raises:
        BrokenTensor: The file is outside `run_dir`, missing, a link, or of another length or hash.
    """
    root = Path(run_dir).resolve()
    path = root / data.path
    if not _resolved(path, data).is_relative_to(root):
        raise BrokenTensor(data.path, f"it lies outside {root}")
    if not 0 <= data.nbytes <= MAX_TENSOR_BYTES:
        raise BrokenTensor(data.path, f"{data.nbytes} bytes are not a length")
    try:
        payload = _read_exactly(path, data.nbytes)
    except OSError as error:
        raise BrokenTensor(data.path, error.strerror or str(error)) from error
    if len(payload) != data.nbytes:
        raise BrokenTensor(data.path, f"it does not have the {data.nbytes} bytes that the message states")
    if hashlib.sha256(payload).hexdigest() != data.sha256:
        raise BrokenTensor(data.path, "its sha256 is not the one in the message")
    return payload


def _resolved(path: Path, data: TensorData) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a loop of links
        raise BrokenTensor(data.path, str(error)) from error


def _read_exactly(path: Path, nbytes: int) -> bytearray:
    """The file's bytes; shorter or empty if its length is not `nbytes`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != nbytes:
            return bytearray() if nbytes else bytearray(1)
        payload = bytearray(nbytes)
        view = memoryview(payload)
        done = 0
        while done < nbytes and (count := file.readinto(view[done : done + READ_BYTES])):
            done += count
    return payload if done == nbytes else bytearray()


def to_numpy(data: TensorData, payload: bytes | bytearray | memoryview) -> np.ndarray[Any, np.dtype[Any]]:
    """The payload as an array of the message's shape; BF16 comes as its uint16 bits.

    Raises:
        BrokenTensor: The dtype has no array type, or the shape does not fit the bytes.
    """
    import numpy as np  # noqa: PLC0415  a driver that only reads files starts without numpy

    code = NUMPY_DTYPES.get(data.dtype)
    if code is None:
        raise BrokenTensor(data.path, f"dtype {data.dtype} has no numpy type")
    if min(data.shape, default=0) < 0 or math.prod(data.shape) * np.dtype(code).itemsize != len(payload):
        raise BrokenTensor(data.path, f"{len(payload)} bytes are not {data.dtype} of shape {data.shape}")
    # SAFETY: `payload` is memory of this process, its length was compared with the shape just above.
    return np.frombuffer(payload, dtype=code).reshape(data.shape)
