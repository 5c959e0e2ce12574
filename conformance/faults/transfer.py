"""Bytes that do not arrive as they were sent."""

from __future__ import annotations

from conformance.faults.planting import Plant, fault

_BLAST = ("mem", "dtype", "cuda", "load", "qual", "build", "err", "int", "perf", "parse")


def _upload(plant, change):
    from reference_engine.storage import CudaStorage

    def changed(build, cls, host, dtype, shape, device, ring=None):
        storage = build(cls, host, dtype, shape, device, ring)
        change(storage, storage.tensor)
        return storage

    plant.replace(CudaStorage, "from_host", changed)


@fault(expects={"F-MEM-021": "same_bytes", "F-MEM-024": "same_bytes"}, blast=_BLAST)
def last_byte_lost(plant: Plant) -> None:
    """The last byte of every upload is zero."""
    from reference_engine.storage import as_bytes

    _upload(plant, lambda storage, tensor: as_bytes(tensor)[-1:].zero_())


@fault(expects={"F-MEM-022": "same_bytes"}, blast=_BLAST)
def beyond_32_mebibytes_lost(plant: Plant) -> None:
    """Of an upload longer than 32 MiB the rest does not arrive."""
    from reference_engine.storage import as_bytes

    _upload(plant, lambda storage, tensor: as_bytes(tensor)[32 << 20 :].zero_())


@fault(expects={"F-MEM-023": "shape"}, blast=_BLAST)
def empty_shapes_flattened(plant: Plant) -> None:
    """A tensor without elements comes back with the shape [0]."""

    def flattened(storage, tensor):
        if tensor.numel() == 0:
            storage.shape = (0,)

    _upload(plant, flattened)


@fault(expects={"F-MEM-024": "same_bytes"}, blast=_BLAST)
def odd_tail_lost(plant: Plant) -> None:
    """Elements beyond the last whole group of four do not arrive."""

    def rounded(storage, tensor):
        flat = tensor.reshape(-1)
        flat[flat.numel() // 4 * 4 :] = 0

    _upload(plant, rounded)


@fault(expects={"F-MEM-025": "same_bytes"}, blast=_BLAST)
def nan_scrubbed(plant: Plant) -> None:
    """NaN becomes zero on its way to the device."""
    inf = float("inf")
    _upload(plant, lambda storage, tensor: tensor.nan_to_num_(nan=0.0, posinf=inf, neginf=-inf))


@fault(expects={"F-MEM-025": "same_bytes"}, blast=_BLAST)
def negative_zero_lost(plant: Plant) -> None:
    """Negative zero becomes zero."""
    _upload(plant, lambda storage, tensor: tensor[tensor == 0].zero_() if 0 else tensor.masked_fill_(tensor == 0, 0.0))


@fault(expects={"F-MEM-026": "same_bytes"}, blast=_BLAST)
def half_subnormals_flushed(plant: Plant) -> None:
    """Subnormal F16 values become zero."""
    import torch

    def flushed(storage, tensor):
        if tensor.dtype == torch.float16:
            tensor.masked_fill_((tensor.abs() < 2**-14) & (tensor != 0), 0.0)

    _upload(plant, flushed)


@fault(expects={"F-MEM-027": "same_bytes"}, blast=_BLAST, seen_in="vLLM#48231, transformers#33294")
def bfloat16_through_half(plant: Plant) -> None:
    """BF16 passes through F16, where large values overflow."""
    import torch

    def narrowed(storage, tensor):
        if tensor.dtype == torch.bfloat16:
            tensor.copy_(tensor.half())

    _upload(plant, narrowed)


@fault(expects={"F-MEM-028": "same_bytes"}, blast=_BLAST, seen_in="web-rwkv#61, safetensors#231")
def offsets_rounded_to_alignment(plant: Plant) -> None:
    """Data that begins at an odd offset is read from the aligned one before it."""
    from reference_engine.files import SafeTensorsFile

    plant.replace(SafeTensorsFile, "read_into", lambda read, self, offset, target: read(self, offset // 4 * 4, target))


@fault(expects={"F-MEM-030": "wrong_after_sync"}, blast=_BLAST, seen_in="realizar 1aaf38a0, bf1e1c33")
def staging_slot_refilled_early(plant: Plant) -> None:
    """Four staging slots go round; a storage reads its slot only after it was filled again."""
    slots = []

    def reused(storage, tensor):
        slots.append(tensor)
        if len(slots) > 4:
            early = slots.pop(0)
            if early.shape == tensor.shape and early.dtype == tensor.dtype:
                early.copy_(tensor)

    _upload(plant, reused)


@fault(expects={"F-MEM-031": "wrong"}, blast=_BLAST)
def tensors_of_one_size_aliased(plant: Plant) -> None:
    """Tensors of one dtype and size in a file share their memory; the last one wins."""
    from reference_engine import loader

    def aliased(original, self, path):
        storages = original(self, path)
        first = {}
        for storage in storages.values():
            storage._tensor = first.setdefault((storage.dtype, storage.nbytes), storage._tensor)
        return storages

    plant.replace(loader.SafeTensorsCudaLoader, "load", aliased)


@fault(expects={"F-MEM-033": "same_bytes"}, blast=("mem",))
def pinned_uploads_shifted(plant: Plant) -> None:
    """Through the pinned path bytes arrive one place too late."""
    from conformance.engines.reference import ReferenceEngine
    from reference_engine.storage import CudaStorage, as_bytes

    def shifted(upload, self, params):
        found = upload(self, params)
        for handle in found.handles if params.pinned else ():
            tensor = as_bytes(self._held.get(handle, CudaStorage).tensor)
            tensor.copy_(tensor.roll(1))
        return found

    plant.replace(ReferenceEngine, "storage_upload", shifted)
