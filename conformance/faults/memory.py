"""Memory that is kept, counted wrongly, or asked for without looking."""

from __future__ import annotations

from conformance.faults.planting import Plant, fault

_KEPT = []


def _leak(nbytes):
    import torch

    _KEPT.append(torch.ones(nbytes, dtype=torch.uint8))


@fault(expects={"F-MEM-032": "uploads"}, blast=("mem", "perf", "load", "F-CUDA-020"), seen_in="mold#50, vLLM#21073")
def dropped_storages_kept(plant: Plant) -> None:
    """A dropped storage leaves the account, and its memory stays."""
    from reference_engine.storage import CudaStorage

    def kept(drop, self):
        _KEPT.append(self._tensor)
        drop(self)

    plant.replace(CudaStorage, "drop", kept)


@fault(expects={"F-MEM-035": "back_to_start"}, blast=("mem", "perf"))
def account_never_falls(plant: Plant) -> None:
    """Memory is given back and stays in the account."""
    from reference_engine.storage import CudaStorage

    def uncounted(drop, self):
        if self._tensor is not None:
            self._tensor = None
            self.device.live_count -= 1

    plant.replace(CudaStorage, "drop", uncounted)


@fault(expects={"F-MEM-035": "within_rounding"}, blast=("mem",))
def account_of_elements(plant: Plant) -> None:
    """The account adds elements where it says bytes."""
    from reference_engine.device import Device

    plant.replace(
        __import__("conformance.engines.reference", fromlist=["ReferenceEngine"]).ReferenceEngine,
        "storage_account",
        lambda account, self, params: type(found := account(self, params))(found.live_bytes // 2, found.live_count),
    )
    assert Device


@fault(expects={"F-MEM-035": "count"}, blast=("mem",))
def frees_counted_twice(plant: Plant) -> None:
    """Each freed storage is subtracted twice from the count."""
    from reference_engine.storage import CudaStorage

    def twice(drop, self):
        if self._tensor is not None:
            self.device.live_count -= 1
        drop(self)

    plant.replace(CudaStorage, "drop", twice)


@fault(expects={"F-CUDA-020": "cycles"}, blast=("perf", "mem"))
def closing_a_device_leaks(plant: Plant) -> None:
    """Each device that is closed leaves 4 MiB behind."""
    from reference_engine.device import Device

    def leaking(close, self):
        _leak(4 << 20)
        close(self)

    plant.replace(Device, "close", leaking)


def _leak_per_generation(plant, nbytes, every=1):
    from reference_engine.engine import Engine

    calls = []

    def leaking(infer, self, *rest):
        calls.append(0)
        if len(calls) % every == 0:
            _leak(nbytes)
        return infer(self, *rest)

    plant.replace(Engine, "infer", leaking)


@fault(expects={"F-PERF-087": "generations"}, blast=("perf",))
def one_mebibyte_a_generation(plant: Plant) -> None:
    """Each generation leaves 1 MiB behind."""
    _leak_per_generation(plant, 1 << 20)


@fault(expects={"F-PERF-087": "generations"}, blast=("perf",))
def burst_every_tenth_generation(plant: Plant) -> None:
    """Every tenth generation leaves 8 MiB behind."""
    _leak_per_generation(plant, 8 << 20, every=10)


@fault(expects={"F-CUDA-016": "refused"}, blast=("cuda", "perf"))
def allocation_not_backed(plant: Plant) -> None:
    """More memory than there is is granted; nothing stands behind it."""
    from reference_engine.device import Device

    def granted(empty, self, shape, dtype):
        big = len(shape) == 1 and shape[0] > self.memory()[1]
        return empty(self, (1,) if big else shape, dtype)

    plant.replace(Device, "empty", granted)


@fault(expects={"F-CUDA-016": "refused"}, blast=("cuda", "F-ERR-092"), seen_in="llama.cpp#27162")
def out_of_memory_under_another_name(plant: Plant) -> None:
    """Want of memory is reported as a broken device."""
    from reference_engine.device import Device
    from reference_engine.errors import DeviceFailed, OutOfDeviceMemory

    def renamed(empty, self, *rest):
        try:
            return empty(self, *rest)
        except OutOfDeviceMemory as error:
            raise DeviceFailed(str(self.torch), str(error)) from None

    plant.replace(Device, "empty", renamed)


@fault(expects={"F-ERR-092": "typed"}, blast=("cuda", "err"), machine="gpu", seen_in="llama.cpp#27162")
def full_device_is_an_internal_error(plant: Plant) -> None:
    """A device without room is found out by the allocator, whose error runs through untyped."""
    from contextlib import nullcontext

    from reference_engine.device import Device

    def unchecked(_empty, self, shape, dtype):
        import torch

        return torch.empty(tuple(shape), dtype=dtype, device=self.torch)

    plant.replace(Device, "empty", unchecked)
    plant.replace(Device, "guard", lambda _original, _self, _asked=None: nullcontext())


@fault(
    expects={"F-ERR-092": "serves_afterwards"}, blast=("cuda", "err", "mem"), machine="gpu", seen_in="realizar 0a3f0eb3"
)
def failure_for_want_of_memory_is_remembered(plant: Plant) -> None:
    """After the device had no room once, every later answer of the process is one id over and over."""
    from dataclasses import replace

    from reference_engine import engine, errors

    failed = []

    def noted(build, error, *arguments):
        failed.append(0)
        build(error, *arguments)

    def spoiled(infer, self, *rest):
        found = infer(self, *rest)
        return replace(found, ids=[1] * len(found.ids)) if failed else found

    plant.replace(errors.OutOfDeviceMemory, "__init__", noted)
    plant.replace(engine.Engine, "infer", spoiled)


@fault(expects={"F-ERR-092": "engine"}, blast=("cuda", "err"), machine="gpu", crash=True, seen_in="LLamaSharp#337")
def full_device_aborts(plant: Plant) -> None:
    """A model for which there is no room aborts the process."""
    import os

    from reference_engine import errors

    plant.replace(errors.OutOfDeviceMemory, "__init__", lambda _build, *_arguments: os.abort())


@fault(expects={"F-MEM-032": "uploads"}, blast=("mem", "load", "qual"), seen_in="mold#50")
def unloaded_weights_kept(plant: Plant) -> None:
    """The weights of a model that was unloaded stay where they are."""
    from reference_engine.model import SafeTensorsCudaModel

    kept = []

    def unload(original, model):
        kept.append(model.weights)
        model._weights = None
        original(model)

    plant.replace(SafeTensorsCudaModel, "unload", unload)
