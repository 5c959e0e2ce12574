"""SafeTensors bytes into device memory: the file is checked, everything is planned, then bytes move once.

To a GPU they go through pinned slabs: each of several threads fills a slab with `preadv`, which releases the GIL, and
sends it on a stream of its own while it fills the next. To the CPU they are read where they belong.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from reference_engine.checkpoint import Checkpoint, Located
from reference_engine.device import Device
from reference_engine.errors import UnsupportedDtype
from reference_engine.files import TensorFile
from reference_engine.storage import TORCH_DTYPES, CudaStorage, Part, PinnedRing, as_bytes

READERS = 12
LOAD_SLAB_BYTES = 4 << 20
# Page-locking costs more than a load: rings are kept for the next one, by device.
_rings: dict[int, list[PinnedRing]] = {}


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
    """A stretch of a file no longer than a slab, and the device memory that its parts belong to, in order."""

    file: TensorFile
    offset: int
    parts: list[Part]


def transfer(moves: Sequence[tuple[Located, torch.Tensor]], device: Device) -> None:
    """Fill device tensors with the bytes of file entries, and wait until they are there.

    Args:
        moves: Entries and contiguous tensors of the same number of bytes; no two tensors overlap.
        device: Where the tensors lie.
    """
    if not device.is_cuda:
        for located, tensor in moves:
            located.file.read_into(located.file.data_start + located.entry.begin, as_bytes(tensor).numpy().data)
        return
    chunks = _chunks(moves)
    left = iter(chunks)
    readers = max(1, min(READERS, len(chunks), os.cpu_count() or 1))
    # The current device is a thread's own; page-locking on another one would make a context there.
    with (
        device.guard(),
        ThreadPoolExecutor(readers, initializer=torch.cuda.set_device, initargs=(device.torch,)) as pool,
    ):
        for carried in [pool.submit(_carry, left, device) for _ in range(readers)]:
            carried.result()


def _carry(chunks: Iterator[_Chunk], device: Device) -> None:
    """Read chunks that no other thread has taken, and send each while the next is read, until none is left."""
    kept = _rings.setdefault(device.index, [])
    ring = kept.pop() if kept else PinnedRing(device, LOAD_SLAB_BYTES)
    ring.follow()
    try:
        for turn, chunk in enumerate(chunks):
            last = chunk.parts[-1]
            chunk.file.read_into(chunk.offset, ring.slab(turn).numpy().data[: last.offset + last.nbytes])
            ring.send(turn, chunk.parts)
    except BaseException:
        # One chunk that fails fails the load: the other threads find nothing left.
        deque(chunks, maxlen=0)
        raise
    finally:
        # Slabs must outlive the copies out of them, and errors of the copies belong to this load.
        ring.stream.synchronize()
        kept.append(ring)


def _chunks(moves: Iterable[tuple[Located, torch.Tensor]]) -> list[_Chunk]:
    """Cut moves into chunks: neighbours in a file share one, long tensors take several."""
    chunks: list[_Chunk] = []
    for located, tensor in sorted(moves, key=lambda move: (move[0].file.path, move[0].entry.begin)):
        file, entry = located.file, located.entry
        # SAFETY: the tensor has the entry's size, and outlives the transfer, which is waited for.
        address, start = tensor.data_ptr(), file.data_start + entry.begin
        for begin in range(0, entry.nbytes, LOAD_SLAB_BYTES):
            offset, nbytes = start + begin, min(LOAD_SLAB_BYTES, entry.nbytes - begin)
            if not chunks or chunks[-1].file is not file or offset + nbytes > chunks[-1].offset + LOAD_SLAB_BYTES:
                chunks.append(_Chunk(file, offset, []))
            chunks[-1].parts.append(Part(address + begin, nbytes, offset - chunks[-1].offset))
    return chunks
