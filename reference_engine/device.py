"""A device opened by its ordinal: memory with an account, streams, and errors with their facts.

`cuda` is the real thing; `cpu` (ordinal 0) runs the same code on host tensors, for machines without a GPU.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from reference_engine.errors import ClosedHandle, DeviceFailed, DeviceNotFound, InvalidArgument, OutOfDeviceMemory

CPU = "cpu"
CUDA = "cuda"
MAX_SPIN_MS = 60_000
SPIN_MARGIN = 1.05
_TRIED = re.compile(r"tried to allocate ([\d.]+) (bytes|[KMGT]iB)", re.IGNORECASE)
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def cuda_count() -> int:
    """CUDA devices that this process can see; makes no context."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def parse_device(name: str) -> tuple[int, str]:
    """Ordinal and backend of `cpu`, `cuda` or `cuda:N`.

    Raises:
        InvalidArgument: The name is none of these.
    """
    match = re.fullmatch(r"(cpu|cuda)(?::(\d{1,4}))?", name)
    if match is None:
        raise InvalidArgument("device", f"{name!r} is none of cpu, cuda and cuda:N")
    return int(match[2] or 0), match[1]


class Device(AbstractContextManager["Device"]):
    """An opened device. Closes as a context manager.

    Args:
        index: Ordinal among the visible devices.
        backend: `cuda` or `cpu`.

    Raises:
        DeviceNotFound: No such ordinal.
        DeviceFailed: The device is there and does not work.
        InvalidArgument: The backend has another name.
    """

    def __init__(self, index: int = 0, backend: str = CUDA) -> None:
        if backend not in {CPU, CUDA}:
            raise InvalidArgument("backend", f"{backend!r} is neither cuda nor cpu")
        count = 1 if backend == CPU else cuda_count()
        if not 0 <= index < count:
            raise DeviceNotFound(index, count)
        self.index = index
        self.is_cuda = backend == CUDA
        self.torch = torch.device(CUDA, index) if self.is_cuda else torch.device(CPU)
        self.live_bytes = 0
        self.live_count = 0
        self._open = True
        _multiply_f32_exactly()
        with self.guard():
            # The context is made here, so that a broken device fails now and not in the middle of a load.
            torch.zeros(1, device=self.torch)
            self.synchronize()

    @property
    def name(self) -> str:
        """The product's name."""
        return str(torch.cuda.get_device_name(self.torch)) if self.is_cuda else _cpu_name()

    @property
    def pci_bus_id(self) -> str:
        """PCI address as `domain:bus:device.0`; empty for the CPU."""
        if not self.is_cuda:
            return ""
        found: Any = torch.cuda.get_device_properties(self.torch)
        return f"{found.pci_domain_id:08X}:{found.pci_bus_id:02X}:{found.pci_device_id:02X}.0"

    def memory(self) -> tuple[int, int]:
        """Free and total bytes; memory that the allocator holds without use counts as free."""
        self.require_open()
        if not self.is_cuda:
            return _host_memory()
        free, total = torch.cuda.mem_get_info(self.torch)
        idle = torch.cuda.memory_reserved(self.torch) - torch.cuda.memory_allocated(self.torch)
        return free + idle, total

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Uninitialised memory on the device.

        Raises:
            OutOfDeviceMemory: More than is free, checked before anything is allocated.
        """
        asked = math.prod(shape) * dtype.itemsize
        free, _ = self.memory()
        if asked > free:
            raise OutOfDeviceMemory(str(self.torch), asked, free)
        with self.guard(asked):
            return torch.empty(tuple(shape), dtype=dtype, device=self.torch)

    @contextmanager
    def guard(self, asked: int | None = None) -> Iterator[None]:
        """Turn torch's errors of memory and device inside the block into this engine's."""
        try:
            yield
        except RuntimeError as error:
            of_driver, told = isinstance(error, torch.AcceleratorError), str(error)
            # The driver's own: a kernel's code, a workspace or a graph found no room beside the allocator's.
            full = (of_driver and "out of memory" in told) or "DefaultCPUAllocator" in told
            if full or isinstance(error, torch.OutOfMemoryError):
                self.trim()
                free = 0
                # There may not even be room for a context to ask in.
                with suppress(torch.AcceleratorError):
                    free, _ = self.memory()
                raise OutOfDeviceMemory(str(self.torch), asked or _tried(told), free) from None
            if of_driver:
                raise DeviceFailed(str(self.torch), told.partition("\n")[0]) from None
            raise

    def synchronize(self) -> None:
        """Wait until everything queued on the device is done."""
        self.require_open()
        if self.is_cuda:
            torch.cuda.synchronize(self.torch)

    def trim(self) -> None:
        """Give memory back to the driver: what the allocator holds without use, and the workspaces of cuBLAS."""
        if self.is_cuda:
            forget_workspaces()
            torch.cuda.empty_cache()

    def spin(self, milliseconds: float) -> None:
        """Queue work that keeps the device busy for at least `milliseconds`, and return without waiting.

        Counted in cycles of the highest clock, so that it takes longer where the clock is lower. On the CPU,
        where nothing is queued, this does nothing.
        """
        self.require_open()
        if not 0 <= milliseconds <= MAX_SPIN_MS:
            raise InvalidArgument("milliseconds", f"{milliseconds} is not between 0 and {MAX_SPIN_MS}")
        if self.is_cuda:
            cycles_per_ms = torch.cuda.get_device_properties(self.torch).clock_rate
            with torch.cuda.device(self.torch):
                torch.cuda._sleep(int(cycles_per_ms * milliseconds * SPIN_MARGIN))  # noqa: SLF001 - no public spin

    def through_streams(self, tensor: torch.Tensor, hops: int) -> torch.Tensor:
        """Copy a tensor along `hops` new streams, each ordered after the last by an event."""
        self.require_open()
        if hops < 1:
            raise InvalidArgument("hops", f"{hops} is not at least 1")
        if not self.is_cuda:
            return tensor.clone()
        home = torch.cuda.current_stream(self.torch)
        before = home.record_event()
        for _ in range(hops):
            stream = torch.cuda.Stream(self.torch)
            stream.wait_event(before)
            with torch.cuda.stream(stream):
                tensor.record_stream(stream)
                tensor = tensor.clone()
            before = stream.record_event()
        home.wait_event(before)
        tensor.record_stream(home)
        return tensor

    def close(self) -> None:
        """Release what the engine holds of the device; closing twice is harmless."""
        if self._open:
            self.trim()
            self._open = False

    def require_open(self) -> None:
        """Raise ClosedHandle unless the device is open."""
        if not self._open:
            raise ClosedHandle(f"device {self.torch}")

    def __exit__(self, *_: object) -> None:
        self.close()


def forget_workspaces() -> None:
    """Let cuBLAS's workspaces go, one for every thread's handle on every stream; the next product takes a new one."""
    torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - torch's own graphs call it so


def _multiply_f32_exactly() -> None:
    """F32 products in IEEE F32: TF32 and BF16 shortcuts lose digits that a reference must keep."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]


def _tried(text: str) -> int:
    """Bytes named in torch's text of an out-of-memory error; 0 if it names none."""
    match = _TRIED.search(text)
    return int(float(match[1]) * _UNITS[match[2]]) if match else 0


def _cpu_name() -> str:
    """Model name of the processor."""
    told = re.search(r"^model name\s*:(.*)", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    return told[1].strip() if told else "CPU"


def _host_memory() -> tuple[int, int]:
    """Available and total bytes of the host."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    sizes = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return sizes["MemAvailable"], sizes["MemTotal"]
