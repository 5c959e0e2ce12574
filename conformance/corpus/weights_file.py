"""Writing and reading SafeTensors files of ours: same content, same bytes, and never a whole file in memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from conformance.corpus.checkpoint import CheckpointInvalid

DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_NUMPY: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_MAX_HEADER_BYTES = 100_000_000

Array = npt.NDArray[Any]


class TensorPlan(NamedTuple):
    """A tensor that is going to be written: dtype in the format's spelling, and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its bytes in the file."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


class Piece(NamedTuple):
    """Consecutive values of a tensor: from which element on, and the values in the tensor's dtype."""

    tensor: str
    start: int
    values: Array


def write_weights(
    path: Path,
    plans: Mapping[str, TensorPlan],
    pieces: Iterable[Callable[[], Piece]],
    threads: int = 1,
) -> None:
    """Write a SafeTensors file, tensors sorted by name, from pieces made in any order on several threads.

    BF16 values are given as uint16 bits. The pieces together must cover every tensor; what they leave out is 0.
    """
    begins, header = _header(plans)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(plan.nbytes for plan in plans.values()))
        descriptor = file.fileno()

        def write(make: Callable[[], Piece]) -> None:
            piece = make()
            dtype = _NUMPY[plans[piece.tensor].dtype]
            data = memoryview(np.ascontiguousarray(piece.values, dtype=dtype).view(np.uint8).data)
            offset = len(header) + begins[piece.tensor] + piece.start * dtype.itemsize
            while data:
                written = os.pwrite(descriptor, data, offset)
                data, offset = data[written:], offset + written

        file.flush()
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(write, pieces):
                pass


def write_tensors(path: Path, tensors: Mapping[str, Array], dtype: str = "F32") -> None:
    """Write whole tensors that are in memory, all in one dtype (BF16 as uint16 bits)."""
    plans = {name: TensorPlan(dtype, values.shape) for name, values in tensors.items()}
    write_weights(path, plans, (_whole(name, values) for name, values in tensors.items()))


def _whole(name: str, values: Array) -> Callable[[], Piece]:
    return lambda: Piece(name, 0, values.reshape(-1))


def _header(plans: Mapping[str, TensorPlan]) -> tuple[dict[str, int], bytes]:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begins, position = {}, 0
    for name in sorted(plans):
        begins[name] = position
        offsets = [position, position := position + plans[name].nbytes]
        entries[name] = {"dtype": plans[name].dtype, "shape": list(plans[name].shape), "data_offsets": offsets}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return begins, len(text).to_bytes(8, "little") + text


def read_plans(path: Path) -> dict[str, TensorPlan]:
    """Names, dtypes and shapes in one of our files or another well-formed one of F32, F16 and BF16.

    Raises:
        CheckpointInvalid: The header cannot be read, or a dtype is none of these.
    """
    entries = _read_header(path)[1]
    return {name: TensorPlan(entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}


def read_tensors(path: Path) -> Iterator[tuple[str, str, Array]]:
    """Every tensor as (name, dtype, values), BF16 as uint16 bits, mapped from the file and not copied.

    Raises:
        CheckpointInvalid: As `read_plans`, or a tensor's bytes are not in the file.
    """
    start, entries = _read_header(path)
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    for name, entry in entries.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        dtype = _NUMPY[entry["dtype"]]
        if not start <= begin <= end <= mapped.size or end - begin != math.prod(entry["shape"]) * dtype.itemsize:
            raise CheckpointInvalid(path, f"the bytes of tensor {name!r} do not fit shape, dtype and file")
        yield name, entry["dtype"], np.ndarray(entry["shape"], dtype, buffer=mapped[begin:end].data)


def _read_header(path: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _MAX_HEADER_BYTES:
                raise CheckpointInvalid(path, f"a header of {length} bytes")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            if entry["dtype"] not in _NUMPY:
                raise CheckpointInvalid(path, f"tensor {name!r} has dtype {entry['dtype']}, not F32, F16 or BF16")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointInvalid(path, f"not a SafeTensors file: {error}") from error
    return 8 + length, entries
