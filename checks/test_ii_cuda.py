"""II. CUDA Initialization: what the engine says of devices against NVML, and how it fails."""

from __future__ import annotations

import math

import numpy as np

from checks.support.devices import devices_seen_with, nvml_of, queueing_times, small_product, witness_memory
from checks.support.growing import CYCLES, grown_by_cycles
from checks.support.misuse import observe_closed_devices
from checks.support.tensors import host_tensor
from conformance.probes.nvml import gpus
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import (
    Allocate,
    CopyAcrossStreams,
    DeviceOpen,
    Empty,
    ErrorKind,
    Handle,
    MatMul,
)
from conformance.trial.stand import AnswerFellShort, Stand

MIB = 1024 * 1024


def test_f_cuda_011(stand: Stand) -> None:
    stand.engine.restart()
    before = witness_memory(stand)
    with stand.opened_device() as device:
        stand.equal("opens_device", expected=stand.plan.device_index if stand.gpu else 0, observed=device.info.index)
        stand.equal("computes", expected=True, observed=small_product(stand, device.handle))
        if stand.needs_gpu("context_seen"):
            stand.equal("context_seen", expected=True, observed=witness_memory(stand) > before)


def test_f_cuda_012(stand: Stand) -> None:
    count = len(gpus())
    for index in (99, -1):
        try:
            stand.engine.call("device.open", DeviceOpen(index))
        except EngineRefused as refusal:
            stand.equal(f"refused/{index}", expected=ErrorKind.DEVICE_NOT_FOUND, observed=refusal.kind)
            named = {"index": str(index) in refusal.message, "count": str(count) in refusal.message}
            stand.equal(f"names/{index}", expected={"index": True, "count": True}, observed=named, hardening=True)
        else:
            stand.failed(f"refused/{index}", "accepted", f"device {index} was opened on a machine with {count}")
    with stand.opened_device() as device:
        stand.equal("still_serves", expected=True, observed=small_product(stand, device.handle))


def test_f_cuda_013(stand: Stand) -> None:
    with stand.opened_device() as device:
        stand.equal("non_empty", expected=True, observed=bool(device.info.name.strip()))
        if stand.needs_gpu("is_nvmls"):
            stand.equal("is_nvmls", expected=nvml_of(stand, device.info).name, observed=device.info.name)


def test_f_cuda_014(stand: Stand) -> None:
    with stand.opened_device() as device:
        stand.equal("positive", expected=True, observed=device.info.total_bytes > 0)
        if stand.needs_gpu("ratio_to_nvml", "free_below_total"):
            total = nvml_of(stand, device.info).total_bytes
            stand.measured("ratio_to_nvml", abs(device.info.total_bytes / total - 1), "relative difference")
            memory = stand.engine.call("device.memory", Handle(device.handle))
            stand.measured("free_below_total", memory.free_bytes / total, "share of NVML's total")


def test_f_cuda_015(stand: Stand) -> None:
    devices = gpus()
    listed = stand.engine.call("device.list", Empty()).devices
    stand.equal("count", expected=len(devices), observed=len(listed))
    stand.equal("indices", expected=list(range(len(devices))), observed=[device.index for device in listed])
    last = devices[-1] if devices else None
    without, *with_last = devices_seen_with(stand, "", *([last.uuid] if last else []))
    stand.equal("none_visible", expected=0, observed=len(without))
    if stand.needs_gpu("names", "one_visible") and last is not None:
        stand.equal("names", expected=[device.name for device in devices], observed=[d.name for d in listed])
        seen = [device.pci_bus_id.lower()[-12:] for device in with_last[0]]
        stand.equal("one_visible", expected=[last.pci_bus_id.lower()[-12:]], observed=seen)


def test_f_cuda_016(stand: Stand) -> None:
    before = witness_memory(stand)
    with stand.opened_device() as device:
        memory = stand.engine.call("device.memory", Handle(device.handle))
        asked = memory.total_bytes + 64 * MIB
        try:
            stand.engine.call("device.allocate", Allocate(device.handle, asked))
        except EngineRefused as refusal:
            stand.equal("refused", expected=ErrorKind.OUT_OF_MEMORY, observed=refusal.kind)
            stand.equal("names_bytes", expected=True, observed=str(asked) in refusal.message, hardening=True)
        else:
            stand.failed("refused", "accepted", f"{asked} bytes were allocated on a device of {memory.total_bytes}")
        small = stand.engine.call("device.allocate", Allocate(device.handle, MIB))
        stand.engine.call("device.free", small)
        stand.equal("still_serves", expected=True, observed=small_product(stand, device.handle))
        if stand.needs_gpu("returned"):
            stand.measured("returned", max(0, witness_memory(stand) - before), "B")


def test_f_cuda_017(stand: Stand) -> None:
    with stand.opened_device() as device:
        if not small_product(stand, device.handle):
            raise AnswerFellShort("the product of the work that is waited for")
        stand.engine.call("device.synchronize", Handle(device.handle))
        if not stand.needs_gpu("queued_without_waiting", "waited"):
            stand.equal(
                "returns", expected=Empty(), observed=stand.engine.call("device.synchronize", Handle(device.handle))
            )
            return
        stand.equal(
            "returns", expected=Empty(), observed=stand.engine.call("device.synchronize", Handle(device.handle))
        )
        queued, waited = queueing_times(stand, device.handle)
        stand.measured("queued_without_waiting", sorted(queued)[len(queued) // 2], "s")
        stand.measured("waited", min(waited), "s")


def test_f_cuda_018(stand: Stand) -> None:
    payload = stand.random.randbytes(16 * MIB if stand.gpu else MIB)
    sent = host_tensor(stand, "F32", [len(payload) // 4], payload)
    with stand.opened_device() as device:
        for hops in (2, 64):
            arrived = stand.engine.call("device.copy_across_streams", CopyAcrossStreams(device.handle, sent, hops))
            stand.equal(f"right_data/{hops}", expected=sent.sha256, observed=arrived.sha256)


def test_f_cuda_019(stand: Stand) -> None:
    generator = np.random.default_rng(stand.seed)
    size = 512
    a, b = (generator.standard_normal((size, size)).astype(np.float32) for _ in range(2))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    with stand.opened_device() as device:
        sent = [host_tensor(stand, "F32", [size, size], matrix.tobytes()) for matrix in (a, b)]
        product = stand.read_tensor(stand.engine.call("device.matmul", MatMul(device.handle, *sent)))
    stand.equal("shape", expected=[size, size], observed=list(product.shape))
    if product.shape != exact.shape:
        return
    error = float(np.linalg.norm(product - exact) / np.linalg.norm(exact))
    precision = stand.manifest.manifest.engine.precision
    stand.measured(f"error/{precision}", error if math.isfinite(error) else math.inf, "relative error")


def test_f_cuda_020(stand: Stand) -> None:
    seen, computed = grown_by_cycles(stand)
    stand.observe(seen)
    stand.equal("cycles/computed", expected=[True] * CYCLES, observed=computed, note="a device that was really open")
    observe_closed_devices(stand)
    if stand.needs_gpu("after_exit"):
        before = witness_memory(stand)
        with stand.engine.fresh() as other, stand.opened_device_of(other) as device:
            other.call("device.allocate", Allocate(device.handle, 256 * MIB))
        stand.measured("after_exit", max(0, witness_memory(stand) - before), "B")
