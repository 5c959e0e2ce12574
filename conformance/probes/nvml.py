"""NVML: what the driver says about devices and who holds their memory. Our witness, never the engine's word.

Whether this is a GPU machine is decided here and by device files, never by torch: a CPU build of torch on a GPU
machine is a finding, not a rehearsal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pynvml

from conformance.reported import Reported
from conformance.verdicts import ExitCode

VISIBLE = "CUDA_VISIBLE_DEVICES"
NONE = "-1"
"""What hides every device on purpose; an empty text may be a scheduler's mistake, and is an error."""
_DEVICE_FILES = "nvidia[0-9]*"


class DeviceUnusable(Reported):
    """An NVIDIA device is visible to the operating system but its driver does not answer."""

    exit_code: ClassVar[ExitCode] = ExitCode.HARNESS

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


def confine(indices: Sequence[int]) -> None:
    """Let this process and what it starts see only these devices, renumbered from 0; none is a machine without one.

    For matrices of planted faults, which share a machine; a trial of an engine never does this.
    """
    uuids = [device.uuid for device in gpus() if device.index in indices]
    os.environ[VISIBLE] = ",".join(uuids) or NONE


def gpus(dev: Path = Path("/dev")) -> list[Gpu]:
    """The NVIDIA devices of this machine, in CUDA's order; empty on a machine without one.

    Where `CUDA_VISIBLE_DEVICES` is set, those it names: place 0 is then what an engine calls `cuda:0`. `-1` is CUDA's
    word for none: a machine without a device.

    Raises:
        DeviceUnusable: device files exist but NVML cannot be used, or lists none, or every device is hidden.
    """
    names = _visible_names()
    if names == [NONE]:
        return []
    found = _all_gpus(dev)
    if names is None or not found:
        return found
    named = [_named(name, found) for name in names]
    if not named:
        raise DeviceUnusable("CUDA_VISIBLE_DEVICES hides every device; --rehearse tries the CPU path")
    return named


def _visible_names() -> list[str] | None:
    named = os.environ.get(VISIBLE)
    return None if named is None else [name.strip() for name in named.split(",") if name.strip()]


def _named(name: str, devices: Sequence[Gpu]) -> Gpu:
    """The device that CUDA means by this name: its place, or the beginning of its UUID."""
    if name.isdecimal() and int(name) < len(devices):
        return devices[int(name)]
    matching = [device for device in devices if device.uuid.startswith(name)]
    if len(matching) != 1:
        raise DeviceUnusable(f"CUDA_VISIBLE_DEVICES names {name!r}, which NVML does not list")
    return matching[0]


def _all_gpus(dev: Path) -> list[Gpu]:
    files = sorted(path.name for path in dev.glob(_DEVICE_FILES))
    try:
        with session():
            found = [_describe(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        if files:
            raise DeviceUnusable(f"{', '.join(files)} present, NVML says {error}") from error
        return []
    if files and not found:
        raise DeviceUnusable(f"{', '.join(files)} present, NVML lists no device")
    return found


def memory_in_use(index: int) -> int:
    """Bytes in use on the whole device at this place of CUDA's, reserved ones left out (NVML memory v2)."""
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


def _handle(index: int) -> Any:
    """NVML's handle of `cuda:index`; NVML itself knows nothing of `CUDA_VISIBLE_DEVICES`."""
    names = _visible_names()
    name = str(index) if names is None else names[index]
    return pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdecimal() else _by_uuid(name)


def _by_uuid(name: str) -> Any:
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    except pynvml.NVMLError as error:
        raise DeviceUnusable(f"CUDA_VISIBLE_DEVICES names {name!r}: {error}") from error


@contextmanager
def session() -> Iterator[None]:
    """NVML kept open; sessions may nest, and all but the first cost nothing."""
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _describe(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
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
