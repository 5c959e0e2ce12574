"""Tensors that live on a device: `CudaStorage`, and the pinned ring through which bytes get there."""

from __future__ import annotations

import functools
import math
import mmap
import weakref
from collections.abc import Sequence
from contextlib import suppress

# SAFETY: one function of the CUDA runtime, with the types of its documentation, its result checked.
from ctypes import PyDLL, c_int, c_size_t, c_void_p
from typing import NamedTuple, Self

import torch

from reference_engine.device import Device
from reference_engine.errors import ClosedHandle, DeviceFailed, InvalidArgument, UnsupportedDtype

TORCH_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPE_NAMES = {value: key for key, value in TORCH_DTYPES.items()}
SLAB_BYTES = 8 << 20
SLABS = 2
HOST_TO_DEVICE = 1
HOST_REGISTER_PORTABLE = 1


class CudaStorage:
    """One weight on a device, F32, F16 or BF16; the engine's account holds its bytes until it is dropped.

    Args:
        device: Where the tensor lies.
        tensor: A contiguous tensor on that device, of shape and dtype as stored.
    """

    def __init__(self, device: Device, tensor: torch.Tensor) -> None:
        self.device = device
        self.dtype = DTYPE_NAMES[tensor.dtype]
        self.shape = tuple(tensor.shape)
        self.nbytes = tensor.nbytes
        self._tensor: torch.Tensor | None = tensor
        device.live_bytes += self.nbytes
        device.live_count += 1

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, dtype: str, shape: Sequence[int], device: Device) -> Self:
        """Copy raw little-endian, C-ordered bytes to a device and wait for the copy.

        Args:
            data: Exactly the bytes of `shape` in `dtype`; any alignment.
            dtype: F32, F16 or BF16.
            shape: Sizes of the dimensions; may hold zeros or be empty.
            device: Where to.

        Raises:
            UnsupportedDtype: Another dtype.
            InvalidArgument: The length is not that of the shape.
            OutOfDeviceMemory: The device has too little free.
        """
        storage = cls.from_host(host_bytes(data), dtype, shape, device)
        device.synchronize()
        return storage

    @classmethod
    def from_host(
        cls, host: torch.Tensor, dtype: str, shape: Sequence[int], device: Device, ring: PinnedRing | None = None
    ) -> Self:
        """Like `from_bytes`, from a host tensor of uint8; through `ring`, or if it is pinned, only queued."""
        storage = cls.empty(dtype, shape, device, nbytes=host.numel())
        if ring is None:
            storage.overwrite(host)
            return storage
        with device.guard():
            ring.upload(host, as_bytes(storage.tensor))
        return storage

    @classmethod
    def empty(cls, dtype: str, shape: Sequence[int], device: Device, nbytes: int | None = None) -> Self:
        """Uninitialised storage; `nbytes`, if given, must be its size."""
        if dtype not in TORCH_DTYPES:
            raise UnsupportedDtype("memory", "", dtype)
        wanted = math.prod(shape) * TORCH_DTYPES[dtype].itemsize
        if min(shape, default=0) < 0 or (nbytes is not None and nbytes != wanted):
            raise InvalidArgument("data", f"{nbytes} bytes are not {dtype} of shape {list(shape)}")
        return cls(device, device.empty(shape, TORCH_DTYPES[dtype]))

    @property
    def tensor(self) -> torch.Tensor:
        """The tensor on the device.

        Raises:
            ClosedHandle: The storage was dropped, or its device closed.
        """
        self.device.require_open()
        if self._tensor is None:
            raise ClosedHandle("the storage")
        return self._tensor

    def overwrite(self, host: torch.Tensor) -> None:
        """Replace the bytes by those of a host tensor of uint8; from a pinned one the copy is only queued."""
        with self.device.guard():
            as_bytes(self.tensor).copy_(host, non_blocking=host.is_pinned())

    def download(self) -> torch.Tensor:
        """The bytes, bit for bit, as a host tensor of uint8."""
        with self.device.guard():
            return as_bytes(self.tensor).cpu().clone()

    def convert(self, dtype: str) -> Self:
        """A new F32 storage with the same values; exact for every F16 and BF16 value.

        Raises:
            InvalidArgument: `dtype` is not F32: narrowing would lose digits.
        """
        if dtype != "F32":
            raise InvalidArgument("dtype", f"{dtype!r}: storage is widened to F32 only")
        target = self.device.empty(self.shape, torch.float32)
        with self.device.guard():
            target.copy_(self.tensor)
        return type(self)(self.device, target)

    def drop(self) -> None:
        """Release the memory to the allocator (`Device.trim` returns it to the driver); twice is harmless."""
        if self._tensor is not None:
            self._tensor = None
            self.device.live_bytes -= self.nbytes
            self.device.live_count -= 1

    def __del__(self) -> None:
        # A failed __init__ leaves no tensor behind.
        if getattr(self, "_tensor", None) is not None:
            self.drop()


class Part(NamedTuple):
    """A stretch of device memory, and where its bytes lie in a slab."""

    address: int
    nbytes: int
    offset: int


class PinnedRing:
    """Page-locked slabs on a stream of their own; none is refilled before its last copy has finished.

    Turns count up from 0 and take the slabs one after the other. A ring belongs to one thread at a time.

    Args:
        device: An open CUDA device.
        slab_bytes: Size of a slab.
        slabs: How many, at least one.

    Raises:
        DeviceFailed: The memory cannot be page-locked.
    """

    def __init__(self, device: Device, slab_bytes: int = SLAB_BYTES, slabs: int = SLABS) -> None:
        self.slab_bytes = slab_bytes
        self.stream = torch.cuda.Stream(device.torch)
        self._memory = _page_locked(device, slab_bytes * slabs)
        self._slabs: tuple[torch.Tensor, ...] = self._memory.split(slab_bytes)
        weakref.finalize(self, _release, self._memory)
        self._copied = [torch.cuda.Event() for _ in range(slabs)]
        self._device = device
        self._uploads = 0
        self.follow()

    def follow(self) -> None:
        """Let the copies to come wait for the current stream: memory that they write may be in use there."""
        self.stream.wait_stream(torch.cuda.current_stream(self._device.torch))

    def slab(self, turn: int) -> torch.Tensor:
        """The slab of a turn (uint8), once the copies of the turn before it are done; fill it, then `send`."""
        place = turn % len(self._slabs)
        self._copied[place].synchronize()
        return self._slabs[place]

    def send(self, turn: int, parts: Sequence[Part]) -> None:
        """Queue copies out of the turn's slab into device memory that outlives them."""
        place = turn % len(self._slabs)
        # SAFETY: the slab's address is used while the ring holds it.
        start, stream = self._slabs[place].data_ptr(), self.stream.cuda_stream
        copy = _runtime().cudaMemcpyAsync
        for address, nbytes, offset in parts:
            # SAFETY: both ends lie in memory that outlives the copy, and the target is as long as what is read.
            code = copy(address, start + offset, nbytes, HOST_TO_DEVICE, stream)
            if code != 0:
                raise DeviceFailed(str(self._device.torch), f"copying to the device: CUDA error {code}")
        self._copied[place].record(self.stream)

    def upload(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Queue host bytes to device bytes, slab by slab; `source` may be changed on return.

        Work queued later on the current stream sees the bytes.
        """
        self.follow()
        for begin in range(0, source.numel(), self.slab_bytes):
            part = source[begin : begin + self.slab_bytes]
            self.slab(self._uploads)[: part.numel()].copy_(part)
            # SAFETY: the target outlives the copies, for the current stream is made to wait for them.
            self.send(self._uploads, [Part(target.data_ptr() + begin, part.numel(), 0)])
            self._uploads += 1
        torch.cuda.current_stream(self._device.torch).wait_stream(self.stream)


@functools.cache
def _runtime() -> PyDLL:
    """The CUDA runtime that torch has loaded: a copy issued here costs a tenth of one by torch's dispatcher.

    Its calls keep the interpreter: among a dozen readers, to give it away and wait for it takes longer than to queue.
    """
    # SAFETY: the library is already in the process, under the name that torch's own build asks for.
    runtime = PyDLL(f"libcudart.so.{str(torch.version.cuda).partition('.')[0]}")
    runtime.cudaMemcpyAsync.argtypes = [c_void_p, c_void_p, c_size_t, c_int, c_void_p]
    return runtime


def _page_locked(device: Device, nbytes: int) -> torch.Tensor:
    """Page-locked host memory (uint8), in huge pages where there are any; `_release` it."""
    memory = mmap.mmap(-1, nbytes)
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    # SAFETY: the tensor keeps the mapping, whose every byte may be anything.
    tensor = torch.frombuffer(memory, dtype=torch.uint8)
    # Touched by the thread that asks: the driver would do it under a lock.
    tensor.zero_()
    # SAFETY: the range is the mapping's own, and is released before it goes.
    code = torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), nbytes, HOST_REGISTER_PORTABLE)
    if int(code) != 0:
        raise DeviceFailed(str(device.torch), f"page-locking {nbytes} bytes: CUDA error {int(code)}")
    return tensor


def _release(memory: torch.Tensor) -> None:
    # SAFETY: the caller still holds the tensor, and with it the mapping.
    torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())


def host_bytes(data: bytes | bytearray | memoryview) -> torch.Tensor:
    """A host tensor of uint8 with a copy of `data`."""
    tensor = torch.empty(len(data), dtype=torch.uint8)
    tensor.numpy().data[:] = data
    return tensor


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a contiguous tensor, as a flat view of uint8."""
    return tensor.reshape(-1).view(torch.uint8)
