"""NVML: what the driver says about devices and who holds their memory. Our witness, never the engine's word.

Whether this is a GPU machine is decided here and by device files, never by torch: a CPU build of torch on a GPU
machine is a finding, not a rehearsal. `CUDA_VISIBLE_DEVICES`, which the engine is given too, is heeded: an index is
one among the devices that it leaves visible, and where it is empty there is none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pynvml

_DEVICE_FILES = "nvidia[0-9]*"


class DeviceUnusable(Exception):
    """An NVIDIA device is visible to the operating system but its driver does not answer."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(f"an NVIDIA device is visible but unusable: {cause}")


class GpuProcess(msgspec.Struct, frozen=True):
    """A process with a context on a device; `used_bytes` is None where the driver does not tell."""

    pid: int
    used_bytes: int | None


class Gpu(msgspec.Struct, frozen=True):
    """A device as NVML describes it; memory in bytes, clocks in MHz."""

    index: int
    name: str
    uuid: str
    pci_bus_id: str
    total_bytes: int
    used_bytes: int
    driver: str
    cuda: str
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    power_limit_w: float | None
    persistence: bool | None
    ecc: bool | None
    processes: list[GpuProcess]


def gpus(dev: Path = Path("/dev")) -> list[Gpu]:
    """All NVIDIA devices visible to the operating system; empty on a machine without one.

    Raises:
        DeviceUnusable: device files exist but NVML cannot be used, or lists none.
    """
    files = sorted(path.name for path in dev.glob(_DEVICE_FILES))
    try:
        with session():
            count = pynvml.nvmlDeviceGetCount()
            found = [_describe(index) for index in range(len(_visible()))]
    except pynvml.NVMLError as error:
        if files:
            raise DeviceUnusable(f"{', '.join(files)} present, NVML says {error}") from error
        return []
    if files and not count:
        raise DeviceUnusable(f"{', '.join(files)} present, NVML lists no device")
    return found


def memory_in_use(index: int) -> int:
    """Bytes in use on the whole device, reserved ones left out (NVML memory v2)."""
    with session():
        handle = _handle(index)
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).used)


def process_memory(index: int, pid: int) -> int | None:
    """Bytes this process holds on the device; 0 without a context, None where the driver does not tell."""
    with session():
        processes = _processes(_handle(index))
    mine = next((process for process in processes if process.pid == pid), None)
    return 0 if mine is None else mine.used_bytes


def utilisation(index: int) -> int:
    """Percent of the last sample period in which some kernel ran."""
    with session():
        handle = _handle(index)
        return int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)


@contextmanager
def session() -> Iterator[None]:
    """NVML kept open; sessions may nest, and all but the first cost nothing."""
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _handle(index: int) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(_visible()[index])


def _visible() -> list[int]:
    """NVML's own indices of the devices that CUDA shows, in its order: up to the first name that means none."""
    count = pynvml.nvmlDeviceGetCount()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return list(range(count))
    found: list[int] = []
    for name in map(str.strip, named.split(",")):
        index = _index_of(name, count)
        if index is None or index in found:
            break
        found.append(index)
    return found


def _index_of(name: str, count: int) -> int | None:
    if name.isdecimal():
        return int(name) if int(name) < count else None
    if not name.startswith("GPU-"):
        return None
    uuids = [_text(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))) for index in range(count)]
    return next((index for index, uuid in enumerate(uuids) if uuid.startswith(name)), None)


def _describe(index: int) -> Gpu:
    handle = _handle(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    version = int(pynvml.nvmlSystemGetCudaDriverVersion())
    return Gpu(
        index=index,
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        pci_bus_id=_text(pynvml.nvmlDeviceGetPciInfo(handle).busId),
        total_bytes=int(memory.total),
        used_bytes=int(memory.used),
        driver=_text(pynvml.nvmlSystemGetDriverVersion()),
        cuda=f"{version // 1000}.{version % 1000 // 10}",
        sm_clock_mhz=_asked(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        memory_clock_mhz=_asked(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        power_limit_w=_watts(_asked(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        persistence=_flag(_asked(pynvml.nvmlDeviceGetPersistenceMode, handle)),
        ecc=_flag((_asked(pynvml.nvmlDeviceGetEccMode, handle) or [None])[0]),
        processes=_processes(handle),
    )


def _processes(handle: Any) -> list[GpuProcess]:
    found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return [GpuProcess(int(process.pid), process.usedGpuMemory) for process in found]


def _asked(question: Any, *arguments: Any) -> Any:
    try:
        return question(*arguments)
    except pynvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)
