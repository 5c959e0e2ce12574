"""Devices: what is said of them, and what only one of them shows."""

from __future__ import annotations

from conformance.faults.planting import Plant, fault


def _adapter():
    from conformance.engines.reference import ReferenceEngine

    return ReferenceEngine


@fault(expects={"F-CUDA-012": "refused"}, blast=("cuda",), seen_in="unsloth#670, torchserve#1136")
def every_ordinal_is_the_first(plant: Plant) -> None:
    """Any ordinal opens the first device there is."""
    from conformance.protocol.messages import DeviceOpen
    from reference_engine.device import cuda_count

    def first(opened, self, params):
        backend = params.backend if cuda_count() else "cpu"
        return opened(self, DeviceOpen(0, backend))

    plant.replace(_adapter(), "device_open", first)


@fault(expects={"F-CUDA-012": "refused"}, blast=("cuda",))
def negative_ordinals_count_from_the_end(plant: Plant) -> None:
    """The ordinal -1 opens the last device, as Python's lists would have it."""
    from conformance.protocol.messages import DeviceOpen
    from reference_engine.device import cuda_count

    def from_end(opened, self, params):
        if params.index >= 0:
            return opened(self, params)
        count = cuda_count()
        return opened(self, DeviceOpen(max(count - 1, 0), params.backend if count else "cpu"))

    plant.replace(_adapter(), "device_open", from_end)


@fault(expects={"F-CUDA-011": "computes", "F-CUDA-019": "error"}, blast=("cuda",))
def products_transposed(plant: Plant) -> None:
    """The right factor of a product is taken transposed where it is square, and turned round where it is not."""
    import torch

    plant.replace(
        torch.Tensor,
        "__matmul__",
        lambda product, a, b: product(a, b.T if b.ndim == 2 and b.shape[0] == b.shape[1] else b.flip(0)),
    )


@fault(expects={"F-CUDA-013": "non_empty"}, blast=("cuda",))
def device_name_is_blank(plant: Plant) -> None:
    """The device's name is blank."""
    from reference_engine.device import Device

    plant.replace(Device, "name", lambda name, self: " ")


@fault(
    expects={"F-CUDA-014": "positive"}, blast=("cuda", "load", "qual", "mem", "dtype", "build", "int", "perf", "err")
)
def total_memory_is_zero(plant: Plant) -> None:
    """Total memory is told as none."""
    from reference_engine.device import Device

    plant.replace(Device, "memory", lambda memory, self: (memory(self)[0], 0))


@fault(expects={"F-CUDA-015": "count"}, blast=("cuda", "build"))
def a_device_too_many(plant: Plant) -> None:
    """The list has a device that is not there."""
    from conformance.protocol.messages import DeviceInfo

    def listed(devices, self, params):
        found = devices(self, params)
        return type(found)([*found.devices, DeviceInfo(len(found.devices), "Phantom", 1 << 30, "")])

    plant.replace(_adapter(), "device_list", listed)


@fault(
    expects={"F-CUDA-017": "returns", "F-CUDA-011": "engine"},
    blast=("cuda", "mem", "dtype", "load", "qual", "build", "int", "perf"),
)
def synchronise_fails(plant: Plant) -> None:
    """Waiting for the device fails with another request's error, as after a lost context."""
    from reference_engine.errors import DeviceFailed

    def failing(wait, self, params):
        raise DeviceFailed("cuda:0", "an illegal memory access was encountered")

    plant.replace(_adapter(), "device_synchronize", failing)


@fault(expects={"F-CUDA-018": "right_data"}, blast=("cuda",), seen_in="realizar a95710de, a3ba1535")
def streams_race(plant: Plant) -> None:
    """Of a chain of streams the last copy is made before the one before it has ended."""
    import torch

    from reference_engine.device import Device

    def racing(through, self, tensor, hops):
        arrived = through(self, tensor, hops)
        half = arrived.numel() // 2
        return torch.cat((arrived[:half], torch.zeros_like(arrived[half:])))

    plant.replace(Device, "through_streams", racing)


@fault(expects={"F-CUDA-019": "error"}, blast=("cuda",))
def matrices_multiplied_in_tf32(plant: Plant) -> None:
    """F32 factors lose thirteen bits before they are multiplied, and nobody is told."""
    import torch

    def shortened(x):
        return (x.view(torch.int32) & -8192).view(torch.float32) if x.dtype == torch.float32 else x

    plant.replace(torch.Tensor, "__matmul__", lambda product, a, b: product(shortened(a), shortened(b)))


@fault(expects={"F-CUDA-017": "waited"}, blast=("cuda",), machine="gpu")
def synchronise_is_a_word(plant: Plant) -> None:
    """Synchronise returns at once."""
    plant.replace(_adapter(), "device_synchronize", lambda wait, self, params: None)


@fault(expects={"F-CUDA-017": "queued_without_waiting"}, blast=("cuda",), machine="gpu")
def queueing_waits(plant: Plant) -> None:
    """Queueing work waits until it is done."""

    def waiting(queue, self, params):
        from conformance.protocol.messages import Handle

        queue(self, params)
        self.device_synchronize(Handle(params.device))

    plant.replace(_adapter(), "device_enqueue", waiting)


@fault(expects={"F-CUDA-019": "error"}, blast=("cuda", "qual", "perf"), machine="gpu")
def tf32_switched_on(plant: Plant) -> None:
    """F32 products run in TF32, and the driver still declares IEEE F32."""
    import torch

    from reference_engine import device

    def shortcut(exactly):
        torch.backends.cuda.matmul.fp32_precision = "tf32"

    plant.replace(device, "_multiply_f32_exactly", shortcut)


@fault(
    expects={"F-MEM-021": "resident", "F-MEM-022": "resident"},
    blast=("mem", "dtype", "cuda", "load", "perf", "qual"),
    machine="gpu",
)
def storages_stay_on_the_host(plant: Plant) -> None:
    """Uploads are kept in host memory and called device memory."""
    from reference_engine.device import Device

    def on_host(empty, self, shape, dtype):
        import torch

        return torch.empty(tuple(shape), dtype=dtype)

    plant.replace(Device, "empty", on_host)


@fault(expects={"F-LOAD-056": "in_vram"}, blast=("load", "int", "qual", "perf", "build"), machine="gpu")
def model_on_the_cpu(plant: Plant) -> None:
    """A model asked for on the GPU is loaded on the CPU."""
    from conformance.protocol.messages import ModelLoad

    plant.replace(_adapter(), "model_load", lambda load, self, p: load(self, ModelLoad(p.path, "cpu", p.dtype)))


@fault(expects={"F-CUDA-013": "is_nvmls"}, blast=("cuda",), machine="gpu")
def name_hard_coded(plant: Plant) -> None:
    """The device's name is that of the developer's card."""
    from reference_engine.device import Device

    plant.replace(Device, "name", lambda name, self: "NVIDIA GeForce RTX 4090")


@fault(expects={"F-CUDA-014": "ratio_to_nvml"}, blast=("cuda",), machine="gpu")
def host_memory_for_device_memory(plant: Plant) -> None:
    """The host's memory is told as the device's."""
    from reference_engine import device

    plant.replace(device.Device, "memory", lambda memory, self: device._host_memory())
