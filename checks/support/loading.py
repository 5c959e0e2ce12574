"""Files loaded onto the trial's device: bit-equal, resident, usable in a product, or refused and nothing left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from checks.support.devices import bare_process_memory, witness_memory
from checks.support.tensors import ITEM_BYTES, bits_of, host_tensor, write_safetensors
from checks.support.transfer import BALLAST_BYTES, first_difference, overwrite
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import (
    Account,
    Convert,
    Drop,
    ErrorKind,
    Handle,
    LoadedFile,
    LoadFile,
    MatMul,
    StoredTensor,
    TensorData,
)
from conformance.trial.stand import Stand, part_of

Tensors = Mapping[str, tuple[str, Sequence[int], bytes]]
_REHEARSED_BALLAST = 64 * 1024
_SHOWN = 5


def observe_loaded(stand: Stand, tensors: Tensors, *, name: str = "same_bytes") -> None:
    """Observe `<name>/<tensor>` for each tensor of one file, `all_loaded`, and on a GPU `resident`."""
    before = bare_process_memory(stand) if stand.gpu else 0
    ballast = BALLAST_BYTES if stand.gpu else _REHEARSED_BALLAST
    held = dict(tensors) | {"ballast": ("F32", [ballast // 4], bits_of("F32", ballast, stand.random)[:ballast])}
    path = write_safetensors(stand.directory / "loaded.safetensors", held)
    with stand.opened_device() as device:
        stored = _load(stand, device.handle, path)
        stand.equal("all_loaded", expected=sorted(held), observed=sorted(stored))
        if stand.gpu:
            total = sum(len(payload) for _, _, payload in held.values())
            seen = witness_memory(stand) - before
            stand.measured("resident", (total - seen) / total, "share that NVML did not see on the device")
            overwrite(path)
        for tensor, (dtype, shape, payload) in tensors.items():
            if tensor in stored:
                back = stand.engine.call("storage.download", Handle(stored[tensor].handle))
                observed = [back.dtype, *back.shape, first_difference(payload, stand.read_bytes(back))]
                note = f"{len(payload)} bytes compared"
                stand.equal(f"{name}/{tensor}", expected=[dtype, *shape, None], observed=observed, note=note)
        stand.engine.call("storage.drop", Drop([one.handle for one in stored.values()]))


def _load(stand: Stand, device: int, path: Path) -> dict[str, StoredTensor]:
    loaded: LoadedFile = stand.engine.call("storage.load_file", LoadFile(device, str(path)))
    return loaded.tensors


def observe_product(stand: Stand, dtype: str) -> None:
    """Observe `product`: loaded integers, widened where they are halves, multiply exactly.

    Values are whole and small, so that every order of summation gives the same product, in any precision that
    is declared for F32; a half that is taken for the other half is off by powers of two.
    """
    left, right = (stand.random.choices(range(-8, 9), k=6 * 6) for _ in range(2))
    matrices = [np.array(values, dtype=np.float32).reshape(6, 6) for values in (left, right)]
    tensors = {name: (dtype, [6, 6], encoded(dtype, matrix)) for name, matrix in zip("ab", matrices, strict=True)}
    path = write_safetensors(stand.directory / "product.safetensors", tensors)
    with stand.opened_device() as device:
        stored = _load(stand, device.handle, path)
        a, b = (_as_f32(stand, part_of(stored, name, f"tensor {name}")) for name in "ab")
        product = stand.read_tensor(stand.engine.call("device.matmul", MatMul(device.handle, a, b)))
    stand.equal("product", expected=(matrices[0] @ matrices[1]).tolist(), observed=product.tolist())


def _as_f32(stand: Stand, stored: StoredTensor) -> TensorData:
    handle = stored.handle
    if stored.dtype != "F32":
        handle = stand.engine.call("storage.convert", Convert(handle, "F32")).handle
    data: TensorData = stand.engine.call("storage.download", Handle(handle))
    return data


def encoded(dtype: str, values: np.ndarray) -> bytes:
    """F32 values as little-endian bytes of a weight dtype; for BF16 they must be exact in it."""
    if dtype == "BF16":
        upper: bytes = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        return upper
    converted: bytes = values.astype("<f2" if dtype == "F16" else "<f4").tobytes()
    return converted


def observe_refused_dtype(stand: Stand, dtype: str, item_bits: int) -> None:
    """Observe that a file with one tensor of this dtype among weights is refused, wherever it stands in the file.

    `explicit/<dtype>/<place>` is the criterion; `kind` and `names` say how clear the error is; `control` is the same
    file without that tensor.
    """
    weights = {f"w.{i}": ("F32", [1024], bits_of("F32", 1024, stand.random)) for i in range(3)}
    odd = {"odd one": (dtype, [16], stand.random.randbytes(16 * item_bits // 8))}
    places = {"first": odd | weights, "last": weights | odd, "alone": odd}
    with stand.opened_device() as device:
        for place, tensors in places.items():
            path = write_safetensors(stand.directory / f"{dtype}-{place}.safetensors", tensors)
            _observe_refusal(stand, f"{dtype}/{place}", device.handle, path, dtype)


def _observe_refusal(stand: Stand, case: str, device: int, path: Path, dtype: str) -> None:
    try:
        stored = _load(stand, device, path)
    except EngineRefused as refusal:
        told = f"{refusal.message} {refusal.fields}"
        note = str(refusal)
        stand.equal(f"explicit/{case}", expected=True, observed=refusal.kind is not ErrorKind.INTERNAL, note=note)
        fitting = refusal.kind is ErrorKind.UNSUPPORTED_DTYPE
        stand.equal(f"kind/{case}", expected=True, observed=fitting, hardening=True, note=note)
        absent = [word for word in ("odd one", dtype) if word not in told]
        stand.equal(f"names/{case}", expected=[], observed=absent, hardening=True, note=note)
    else:
        what = ", ".join(f"{name} as {one.dtype}" for name, one in stored.items()) or "nothing at all"
        stand.failed(f"explicit/{case}", "accepted", f"{path.name} was loaded: {what}")


def observe_nothing_left(stand: Stand, dtype: str, item_bits: int) -> None:
    """Observe that a refused file leaves nothing: not in the engine's account, and on a GPU not by NVML."""
    ballast = BALLAST_BYTES if stand.gpu else 1024 * 1024
    weights = {"ballast": ("F32", [ballast // 4], bits_of("F32", ballast // 4, stand.random))}
    odd = {"odd one": (dtype, [16], stand.random.randbytes(2 * item_bits))}
    path = write_safetensors(stand.directory / "refused.safetensors", weights | odd)
    control = write_safetensors(stand.directory / "control.safetensors", weights)
    with stand.opened_device() as device:
        stored = _load(stand, device.handle, control)
        stand.equal("control", expected=sorted(weights), observed=sorted(stored))
        stand.engine.call("storage.drop", Drop([one.handle for one in stored.values()]))
        before: Account = stand.engine.call("storage.account", Handle(device.handle))
        seen = witness_memory(stand) if stand.gpu else 0
        accepted = False
        try:
            _load(stand, device.handle, path)
        except EngineRefused:
            pass
        else:
            accepted = True
        after: Account = stand.engine.call("storage.account", Handle(device.handle))
        left = [after.live_bytes - before.live_bytes, after.live_count - before.live_count]
        if not accepted:
            stand.equal("nothing_left", expected=[0, 0], observed=left, note="bytes and storages in the account")
            if stand.gpu:
                stand.measured("left_on_device", max(0, witness_memory(stand) - seen), "B")


def observe_widening(stand: Stand, dtype: str) -> None:
    """Observe `wrong`: patterns of all 65,536 whose F32 is not the same value; any NaN will do for a NaN."""
    patterns = np.arange(65536, dtype="<u2")
    stand.random.shuffle(order := list(range(65536)))
    patterns = patterns[order]
    path = write_safetensors(
        stand.directory / "halves.safetensors", {"halves": (dtype, [256, 256], patterns.tobytes())}
    )
    with stand.opened_device() as device:
        stored = part_of(_load(stand, device.handle, path), "halves", "the tensor")
        back = _as_f32(stand, stored)
        observed = stand.read_bytes(back)
    stand.equal("described", expected=["F32", 256, 256], observed=[back.dtype, *back.shape])
    wrong = wrongly_widened(dtype, patterns, np.frombuffer(observed, dtype="<u4"))
    note = "every pattern once; a NaN may become any NaN, everything else its exact value, subnormals and signs too"
    stand.equal("wrong", expected=[], observed=wrong[:_SHOWN], note=note)


def wrongly_widened(dtype: str, patterns: np.ndarray, observed: np.ndarray) -> list[str]:
    """Patterns whose F32 bits are wrong, as `0x0001 became 0x00000000, not 0x33800000`."""
    right = exact_f32(dtype, patterns)
    if observed.size != right.size:
        return [f"{observed.size} values for {right.size}"]
    both_nan = np.isnan(right.view("<f4")) & np.isnan(observed.view("<f4"))
    found = np.flatnonzero((right != observed) & ~both_nan)
    return [f"0x{patterns[i]:04x} became 0x{observed[i]:08x}, not 0x{right[i]:08x}" for i in found]


def exact_f32(dtype: str, patterns: np.ndarray) -> np.ndarray:
    """F32 bits of halves' bits: BF16 is the upper half of an F32, F16 is widened by numpy."""
    if dtype == "BF16":
        return patterns.astype("<u4") << 16
    return patterns.view("<f2").astype("<f4").view("<u4")


def item_count(dtype: str, payload: bytes) -> int:
    """How many values of a weight dtype these bytes are."""
    return len(payload) // ITEM_BYTES[dtype]


def sent_and_back(stand: Stand, dtype: str, payload: bytes, *, pinned: bool) -> str | None:
    """How bytes differ after an upload and a download; None where they are the same."""
    from conformance.protocol.messages import Upload  # noqa: PLC0415

    with stand.opened_device() as device:
        sent = host_tensor(stand, dtype, [item_count(dtype, payload)], payload)
        handles = stand.engine.call("storage.upload", Upload(device.handle, [sent], pinned)).handles
        handle = Handle(part_of(handles, 0, "a handle of the tensor"))
        return first_difference(payload, stand.read_bytes(stand.engine.call("storage.download", handle)))
