"""Round trips host → device → host under the residence rule.

Bytes that come back do not prove that the device was visited. So ballast travels in the same call, the source
files are overwritten between upload and read-back, and NVML must have seen the process hold at least as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from checks.support.devices import bare_process_memory, witness_memory
from checks.support.tensors import bits_of, host_tensor
from conformance.protocol.messages import Drop, Handle, Upload
from conformance.trial.stand import Stand, part_of

BALLAST_BYTES = 128 * 1024 * 1024
_SHOWN = 16
_PIECE_BYTES = 4 * 1024 * 1024


class Payload(msgspec.Struct, frozen=True):
    """One tensor to send: dtype, shape and its little-endian bytes."""

    dtype: str
    shape: list[int]
    data: bytes


def round_trip(stand: Stand, payloads: Mapping[str, Payload], *, pinned: bool = False) -> None:
    """Observe `same_bytes/<name>` for each payload, and on a GPU `resident` and `released`."""
    before = bare_process_memory(stand)
    with stand.opened_device() as device:
        sent = {name: host_tensor(stand, p.dtype, p.shape, p.data) for name, p in payloads.items()}
        ballast_bytes = BALLAST_BYTES if stand.gpu else 1024 * 1024
        ballast = host_tensor(stand, "F32", [ballast_bytes // 4], bits_of("F32", ballast_bytes // 4, stand.random))
        handles = stand.engine.call("storage.upload", Upload(device.handle, [*sent.values(), ballast], pinned)).handles
        held = witness_memory(stand) - before
        for tensor in (*sent.values(), ballast):
            overwrite(stand.plan.directory / "exchange" / tensor.path)
        for index, (name, payload) in enumerate(payloads.items()):
            _compare(stand, name, payload, part_of(handles, index, f"a handle of {name}"))
        total = ballast_bytes + sum(len(payload.data) for payload in payloads.values())
        stand.engine.call("storage.drop", Drop(handles))
        if stand.needs_gpu("resident", "released"):
            stand.measured("resident", (total - held) / total, "share that NVML did not see on the device")
            stand.measured("released", _after_another(stand, device.handle, ballast_bytes, before), "B")


def uploaded(stand: Stand, upload: Upload) -> int:
    """The handle of the one tensor that is uploaded."""
    handles: list[int] = stand.engine.call("storage.upload", upload).handles
    return part_of(handles, 0, "a handle of the tensor")


def _compare(stand: Stand, name: str, payload: Payload, handle: int) -> None:
    back = stand.engine.call("storage.download", Handle(handle))
    observed = stand.read_bytes(back)
    stand.equal(f"shape/{name}", expected=[payload.dtype, *payload.shape], observed=[back.dtype, *back.shape])
    wrong = first_difference(payload.data, observed)
    stand.equal(f"same_bytes/{name}", expected=None, observed=wrong, note=f"{len(payload.data)} bytes compared")


def first_difference(expected: bytes, observed: bytes | bytearray) -> str | None:
    """Where two byte strings differ first, in words; None when they are the same."""
    if expected == observed:
        return None
    if len(expected) != len(observed):
        return f"{len(observed)} bytes for {len(expected)}"
    at = next(i for i, (a, b) in enumerate(zip(expected, observed, strict=True)) if a != b)
    return f"byte {at}: {expected[at : at + _SHOWN].hex()} became {observed[at : at + _SHOWN].hex()}"


def _after_another(stand: Stand, device: int, nbytes: int, before: int) -> int:
    """Bytes that a second upload of the ballast adds beyond one: freed memory is given back or used again."""
    sent = host_tensor(stand, "F32", [nbytes // 4], bits_of("F32", nbytes // 4, stand.random))
    handles = stand.engine.call("storage.upload", Upload(device, [sent])).handles
    held = witness_memory(stand) - before
    stand.engine.call("storage.drop", Drop(handles))
    return max(0, held - nbytes)


def overwrite(path: Path) -> None:
    """Replace the file's bytes in place, so that a storage that only mapped it is seen."""
    noise = b"\xa5" * _PIECE_BYTES
    with path.open("r+b") as file:
        left = path.stat().st_size
        while left > 0:
            left -= file.write(noise[:left])
