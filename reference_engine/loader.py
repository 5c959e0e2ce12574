"""SafeTensors bytes into device memory: the file is checked, everything is planned, then bytes move once.

To a GPU they go through pinned slabs: reader threads fill slabs with `preadv`, which releases the GIL, while one
thread sends the filled ones, in the file's order, on one stream: several threads that issue copies wait for each
other. To the CPU they are read where they belong.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import torch

from reference_engine.checkpoint import Checkpoint
from reference_engine.errors import UnsupportedDtype
from reference_engine.storage import SLAB_BYTES, TORCH_DTYPES, CudaStorage, PinnedRing, as_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from reference_engine.checkpoint import Located
    from reference_engine.device import Device
    from reference_engine.files import TensorFile

READERS = 16
LOAD_SLABS = 24


class SafeTensorsCudaLoader:
    """Loads every tensor of a file, or of a sharded checkpoint, onto a device."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def load(self, path: str | Path) -> dict[str, CudaStorage]:
        """Storages by tensor name, bit for bit as in the file.

        Raises:
            UnsupportedDtype: Some tensor is not F32, F16 or BF16; then nothing was allocated.
            InvalidFile, FileNotFound, PermissionDenied: The file cannot be used.
            OutOfDeviceMemory: The device has too little free; then nothing stays allocated.
        """
        with Checkpoint(path) as checkpoint:
            for name, located in checkpoint.tensors.items():
                require_weight_dtype(name, located)
            storages: dict[str, CudaStorage] = {}
            try:
                for name, located in checkpoint.tensors.items():
                    entry = located.entry
                    storages[name] = CudaStorage.empty(entry.dtype, entry.shape, self.device, entry.nbytes)
                moves = [(located, storages[name].tensor) for name, located in checkpoint.tensors.items()]
                transfer(moves, self.device)
            except BaseException:
                for storage in storages.values():
                    storage.drop()
                del storages
                self.device.trim()
                raise
        return storages


def require_weight_dtype(name: str, located: Located) -> None:
    """Raise UnsupportedDtype unless weights can have the tensor's dtype."""
    if located.entry.dtype not in TORCH_DTYPES:
        raise UnsupportedDtype(located.file.path, name, located.entry.dtype)


class _Chunk(NamedTuple):
    """A stretch of a file no longer than a slab, and the device bytes that its parts belong to."""

    file: TensorFile
    offset: int
    length: int
    parts: list[tuple[torch.Tensor, int]]


def transfer(moves: Iterable[tuple[Located, torch.Tensor]], device: Device) -> None:
    """Fill device tensors with the bytes of file entries, and wait until they are there.

    Args:
        moves: Entries and contiguous tensors of the same number of bytes; no two tensors overlap.
        device: Where the tensors lie.
    """
    chunks = list(_chunks(moves))
    if not device.is_cuda:
        for file, offset, _, parts in chunks:
            for target, skip in parts:
                file.read_into(offset + skip, target.numpy().data)
        return
    readers = max(1, min(READERS, len(chunks), os.cpu_count() or 1))
    # The current device is a thread's own; page-locking on another one would make a context there.
    with (
        device.guard(),
        ThreadPoolExecutor(readers, initializer=torch.cuda.set_device, initargs=(device.torch,)) as pool,
    ):
        _stream(chunks, PinnedRing(device, SLAB_BYTES, LOAD_SLABS), pool)


def _stream(chunks: Sequence[_Chunk], ring: PinnedRing, pool: ThreadPoolExecutor) -> None:
    """Send chunks as they are read, while as many later ones as there are slabs are being read."""
    reads = [pool.submit(_read, chunk, ring, turn) for turn, chunk in enumerate(chunks[: len(ring)])]
    try:
        for turn, chunk in enumerate(chunks):
            reads[turn].result()
            ring.send(turn, chunk.parts)
            later = turn + len(ring)
            if later < len(chunks):
                reads.append(pool.submit(_read, chunks[later], ring, later))
    finally:
        pool.shutdown(cancel_futures=True)
        # Slabs must outlive the copies out of them, and errors of the copies belong to this load.
        ring.stream.synchronize()


def _read(chunk: _Chunk, ring: PinnedRing, turn: int) -> None:
    chunk.file.read_into(chunk.offset, ring.slab(turn).numpy().data[: chunk.length])


def _chunks(moves: Iterable[tuple[Located, torch.Tensor]]) -> Iterator[_Chunk]:
    """Cut moves into chunks: neighbours in a file share one, long tensors take several."""
    chunk: _Chunk | None = None
    for located, tensor in sorted(moves, key=lambda move: (move[0].file.path, move[0].entry.begin)):
        file, entry = located.file, located.entry
        target = as_bytes(tensor)
        offset = file.data_start + entry.begin
        for begin in range(0, entry.nbytes, SLAB_BYTES):
            part = target[begin : begin + SLAB_BYTES]
            end = offset + begin + part.numel()
            if chunk is not None and (chunk.file is not file or end > chunk.offset + SLAB_BYTES):
                yield chunk
                chunk = None
            if chunk is None:
                chunk = _Chunk(file, offset + begin, 0, [])
            chunk.parts.append((part, offset + begin - chunk.offset))
            chunk = chunk._replace(length=end - chunk.offset)
    if chunk is not None:
        yield chunk
