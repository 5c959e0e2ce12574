"""Devices and storages of the reference engine behind the protocol: a part of its adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from conformance.engines.handles import HandleTable
from conformance.protocol import messages as m
from conformance.protocol.tensors import read_tensor, write_tensor
from reference_engine.errors import InvalidArgument

if TYPE_CHECKING:
    import torch

    from reference_engine.device import Device
    from reference_engine.storage import CudaStorage, PinnedRing


class OpenDevice(NamedTuple):
    """A device under a handle, and the ring its pinned uploads go through."""

    device: Device
    ring: PinnedRing | None


class Buffer(NamedTuple):
    """Plain device memory under a handle."""

    device: Device
    tensor: torch.Tensor


class Staged(NamedTuple):
    """Host bytes under a handle, and the storages they are uploaded to."""

    device: Device
    hosts: list[torch.Tensor]
    targets: list[CudaStorage]


class DeviceMethods:
    """The methods `device.*` and `storage.*`; torch is imported by the first of them."""

    def __init__(self) -> None:
        self._held = HandleTable()
        self._run_dir = ""
        self._threads: int | None = None

    # --- devices ------------------------------------------------------------------------------------------

    def device_list(self, _params: m.Empty) -> m.DeviceList:
        """CUDA devices in torch's order; none on a machine without."""
        from reference_engine.device import Device, cuda_count

        devices = []
        for index in range(cuda_count()):
            with Device(index) as device:
                devices.append(_info(device))
        return m.DeviceList(devices)

    def device_open(self, params: m.DeviceOpen) -> m.DeviceOpened:
        """Open a device by its ordinal."""
        from reference_engine.storage import PinnedRing

        device = self._open(params.index, params.backend)
        # Page-locked now, so that the first upload is timed like all others.
        ring = PinnedRing(device) if device.is_cuda else None
        return m.DeviceOpened(self._held.hold(OpenDevice(device, ring)), _info(device))

    def device_close(self, params: m.Handle) -> None:
        """Release everything held on the device, then the device."""
        device = self._held.take(params.handle, OpenDevice).device
        mine = [handle for handle, held in self._held if getattr(held, "device", None) is device]
        self._release(mine)
        device.close()

    def device_memory(self, params: m.Handle) -> m.DeviceMemory:
        """Free and total bytes, and the account of storages and buffers."""
        device = self._held.get(params.handle, OpenDevice).device
        buffers = [held for _, held in self._held if isinstance(held, Buffer) and held.device is device]
        free, total = device.memory()
        return m.DeviceMemory(free, total, device.live_bytes + sum(buffer.tensor.nbytes for buffer in buffers))

    def device_allocate(self, params: m.Allocate) -> m.Handle:
        """Allocate bytes and write to all of them."""
        import torch

        device = self._held.get(params.device, OpenDevice).device
        if params.nbytes < 0:
            raise InvalidArgument("nbytes", f"{params.nbytes} is negative")
        tensor = device.empty((params.nbytes,), torch.uint8).fill_(1)
        device.synchronize()
        return m.Handle(self._held.hold(Buffer(device, tensor)))

    def device_free(self, params: m.Handle) -> None:
        """Give a buffer back to the driver."""
        self._held.get(params.handle, Buffer)
        self._release([params.handle])

    def device_enqueue(self, params: m.Enqueue) -> None:
        """Queue a spin."""
        self._held.get(params.device, OpenDevice).device.spin(params.milliseconds)

    def device_synchronize(self, params: m.Handle) -> None:
        """Wait for all queued work."""
        self._held.get(params.handle, OpenDevice).device.synchronize()

    def device_copy_across_streams(self, params: m.CopyAcrossStreams) -> m.TensorData:
        """Carry bytes along a chain of streams."""
        from reference_engine.storage import as_bytes, host_bytes

        device = self._held.get(params.device, OpenDevice).device
        with device.guard():
            sent = host_bytes(read_tensor(self._run_dir, params.data)).to(device.torch)
            arrived = as_bytes(device.through_streams(sent, params.hops)).cpu()
        return self._write(params.data.dtype, params.data.shape, arrived)

    def device_matmul(self, params: m.MatMul) -> m.TensorData:
        """Product of two matrices in their own dtype."""
        from reference_engine.storage import CudaStorage

        device = self._held.get(params.device, OpenDevice).device
        a, b = params.a, params.b
        if a.dtype != b.dtype or len(a.shape) != 2 or len(b.shape) != 2 or a.shape[1] != b.shape[0]:  # noqa: PLR2004
            raise InvalidArgument("matrices", f"{a.dtype} {a.shape} and {b.dtype} {b.shape} have no product")
        left, right = (
            CudaStorage.from_bytes(read_tensor(self._run_dir, data), data.dtype, data.shape, device) for data in (a, b)
        )
        with device.guard():
            product = CudaStorage(device, left.tensor @ right.tensor)
        return self._write(product.dtype, product.shape, product.download())

    # --- storages -----------------------------------------------------------------------------------------

    def storage_upload(self, params: m.Upload) -> m.Handles:
        """Copy tensors to the device, through pinned slabs if asked to."""
        from reference_engine.storage import CudaStorage, host_bytes

        device, ring = self._held.get(params.device, OpenDevice)
        storages = [
            CudaStorage.from_host(
                host_bytes(read_tensor(self._run_dir, data)),
                data.dtype,
                data.shape,
                device,
                ring if params.pinned else None,
            )
            for data in params.tensors
        ]
        if not params.asynchronous:
            device.synchronize()
        return m.Handles([self._held.hold(storage) for storage in storages])

    def storage_download(self, params: m.Handle) -> m.TensorData:
        """The bytes of a storage."""
        from reference_engine.storage import CudaStorage

        storage = self._held.get(params.handle, CudaStorage)
        return self._write(storage.dtype, storage.shape, storage.download())

    def storage_convert(self, params: m.Convert) -> m.Handle:
        """Widen to F32."""
        from reference_engine.storage import CudaStorage

        return m.Handle(self._held.hold(self._held.get(params.handle, CudaStorage).convert(params.dtype)))

    def storage_drop(self, params: m.Drop) -> None:
        """Drop storages and staged input, and give their memory back to the driver."""
        from reference_engine.storage import CudaStorage

        for handle in params.handles:
            self._held.get(handle, CudaStorage, Staged, Buffer)
        self._release(params.handles)

    def storage_stage(self, params: m.Stage) -> m.Handle:
        """Read tensors into host memory and allocate where they will go."""
        import torch

        from reference_engine.storage import CudaStorage

        device = self._held.get(params.device, OpenDevice).device
        hosts, targets = [], []
        for data in params.tensors:
            payload = read_tensor(self._run_dir, data)
            host_tensor = torch.empty(len(payload), dtype=torch.uint8, pin_memory=params.pinned and device.is_cuda)
            host_tensor.numpy().data[:] = payload
            hosts.append(host_tensor)
            targets.append(CudaStorage.empty(data.dtype, data.shape, device, len(payload)))
        return m.Handle(self._held.hold(Staged(device, hosts, targets)))

    def storage_upload_staged(self, params: m.UploadStaged) -> None:
        """Copy staged input `repeat` times, and wait once."""
        staged = self._held.get(params.staged, Staged)
        for _ in range(params.repeat):
            for source, target in zip(staged.hosts, staged.targets, strict=True):
                target.overwrite(source)
        staged.device.synchronize()

    def storage_account(self, params: m.Handle) -> m.Account:
        """Live storages of a device, in bytes as stored."""
        device = self._held.get(params.handle, OpenDevice).device
        return m.Account(device.live_bytes, device.live_count)

    def storage_load_file(self, params: m.LoadFile) -> m.LoadedFile:
        """Load every tensor of a file."""
        from reference_engine.loader import SafeTensorsCudaLoader

        loaded = SafeTensorsCudaLoader(self._held.get(params.device, OpenDevice).device).load(params.path)
        tensors = {
            name: m.StoredTensor(self._held.hold(storage), storage.dtype, list(storage.shape))
            for name, storage in loaded.items()
        }
        return m.LoadedFile(tensors, type_name(next(iter(loaded.values()), None)))

    # --- behind the methods -------------------------------------------------------------------------------

    def _open(self, index: int, backend: str) -> Device:
        import torch

        from reference_engine.device import Device

        if self._threads:
            torch.set_num_threads(self._threads)
        return Device(index, backend)

    def _release(self, handles: list[int]) -> None:
        """Forget what is under these handles and return its memory to the driver, once for all of them."""
        released: list[Any] = [self._held.take(handle, object) for handle in dict.fromkeys(handles)]
        devices = {id(held.device): held.device for held in released}
        while released:
            _drop(released.pop())
        for device in devices.values():
            device.trim()

    def _write(self, dtype: str, shape: Sequence[int], payload: torch.Tensor) -> m.TensorData:
        return write_tensor(self._run_dir, dtype, list(shape), payload.numpy().data)


def _drop(held: CudaStorage | Staged | Buffer) -> None:
    """Drop storages now; a buffer goes with its last reference, which is the argument."""
    if isinstance(held, Staged):
        for target in held.targets:
            target.drop()
    elif not isinstance(held, Buffer):
        held.drop()


def _info(device: Device) -> m.DeviceInfo:
    return m.DeviceInfo(device.index, device.name, device.memory()[1], device.pci_bus_id)


def type_name(thing: object) -> str:
    """Qualified name of a thing's type; empty for None."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}" if thing is not None else ""
