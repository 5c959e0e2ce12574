"""Devices and memory as our witnesses see them: NVML per process, or the system's resident memory in a rehearsal."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import psutil

from checks.support.tensors import host_tensor
from conformance.observations import Growth
from conformance.probes.nvml import Gpu, gpus, memory_in_use, process_memory
from conformance.protocol.client import Engine
from conformance.protocol.messages import DeviceInfo, DeviceList, Empty, Enqueue, Handle, MatMul
from conformance.protocol.starvation import Starvation
from conformance.trial.launching import launch_of
from conformance.trial.stand import Stand


def nvml_of(stand: Stand, info: DeviceInfo) -> Gpu:
    """NVML's entry for the same PCI device; the device of the trial where the engine names none."""
    found = [device for device in gpus() if info.pci_bus_id and _same_bus(device.pci_bus_id, info.pci_bus_id)]
    return found[0] if found else gpus()[stand.plan.device_index]


def _same_bus(a: str, b: str) -> bool:
    """`00000000:0B:00.0` and `0000:0b:00.0` are one device."""
    return a.lower()[-12:] == b.lower()[-12:]


def devices_seen_with(stand: Stand, *visible: str) -> list[list[DeviceInfo]]:
    """What a fresh process of the engine lists under each of these `CUDA_VISIBLE_DEVICES`, side by side."""
    launch = launch_of(stand.manifest, stand.plan)

    def listed(value: str) -> list[DeviceInfo]:
        with Engine(replace(launch, env=launch.env | {"CUDA_VISIBLE_DEVICES": value})) as engine:
            found: DeviceList = engine.call("device.list", Empty())
            return found.devices

    with ThreadPoolExecutor(len(visible)) as threads:
        return list(threads.map(listed, visible))


def witness_memory(stand: Stand, engine: Engine | None = None) -> int:
    """Bytes in use by the engine's process: on the device by NVML, or resident in the host in a rehearsal.

    Where the driver does not tell processes apart, the whole device is read; then no other tenant may be there.
    """
    pid = (engine or stand.engine).pid
    if not stand.gpu:
        return int(psutil.Process(pid).memory_info().rss)
    mine = process_memory(stand.plan.device_index, pid)
    return memory_in_use(stand.plan.device_index) if mine is None else mine


WORK_OF_MODELS = frozenset({"model.load", "model.logits", "generate"})
QUEUEINGS, QUEUED_MS = 5, 400.0
_BASELINES: dict[int, int] = {}


def bare_process_memory(stand: Stand) -> int:
    """What the engine's process held when it was new: a context and its libraries, and not one tensor.

    An engine that caches freed memory may hold more than its live tensors, never less; so what it holds beyond
    this is compared with what it must hold. A process whose first moments were not seen is replaced, and so is one
    that ran a model: libraries keep their workspaces and the code of each kernel they ever ran, which is no leak.
    """
    if stand.engine.pid not in _BASELINES or not stand.engine.served.isdisjoint(WORK_OF_MODELS):
        stand.engine.restart()
        with stand.opened_device() as device:
            small_product(stand, device.handle)
        # Opened again: what an engine gives back with a device, such as a product's workspace, is not its bare size.
        with stand.opened_device():
            _BASELINES[stand.engine.pid] = witness_memory(stand)
    return _BASELINES[stand.engine.pid]


def small_product(stand: Stand, device: int) -> bool:
    """A small exact product on the device: True when it is right to the last bit."""
    left = np.arange(48, dtype=np.float32).reshape(6, 8)
    right = np.arange(80, dtype=np.float32).reshape(8, 10) % 7
    sent = [host_tensor(stand, "F32", list(matrix.shape), matrix.tobytes()) for matrix in (left, right)]
    product = stand.read_tensor(stand.engine.call("device.matmul", MatMul(device, *sent)))
    return bool(np.array_equal(product, left @ right))


def queueing_times(stand: Stand, device: int) -> tuple[list[float], list[float]]:
    """Seconds to queue 400 ms of work, without those for which others had the processors, and until it is done."""
    queued, waited = [], []
    for _ in range(QUEUEINGS):
        withheld = Starvation(lambda: [stand.engine.pid, os.getpid()])
        began = time.perf_counter()
        stand.engine.call("device.enqueue", Enqueue(device, QUEUED_MS))
        queued.append(time.perf_counter() - began - withheld.look())
        stand.engine.call("device.synchronize", Handle(device))
        waited.append(time.perf_counter() - began)
    return queued, waited


def growth_over(
    stand: Stand, name: str, operation: Callable[[], None], *, count: int, warm_up: int, device: int | None = None
) -> Growth:
    """Repeat an operation and note, after each, the engine's own account and what our witness sees."""
    account: list[int] = []
    witness: list[int] = []
    for _ in range(count):
        operation()
        own = stand.engine.call("storage.account", Handle(device)).live_bytes if device is not None else 0
        account.append(own)
        witness.append(witness_memory(stand))
    source = "NVML" if stand.gpu else "resident memory"
    return Growth(name=name, account=account, witness=witness, witness_name=source, warm_up=warm_up)
