"""Handles that are used after what they stood for is gone: a clean error each, and the engine serves on."""

from __future__ import annotations

from checks.support.devices import small_product
from checks.support.tensors import bits_of, host_tensor
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import Allocate, Convert, Drop, Handle, Message, Upload
from conformance.trial.stand import Stand

_NEVER_GIVEN = 987_654_321


def observe_dropped_storages(stand: Stand, device: int) -> None:
    """Observe `misused/<how>` for storages that were dropped: dropped again, read, widened; and a handle of nobody."""
    payload = bits_of("F16", 64, stand.random)
    sent = host_tensor(stand, "F16", [64], payload)
    first, second = stand.engine.call("storage.upload", Upload(device, [sent, sent])).handles
    stand.engine.call("storage.drop", Drop([first]))
    _refused(stand, "dropped twice", "storage.drop", Drop([first]))
    _refused(stand, "read after drop", "storage.download", Handle(first))
    _refused(stand, "widened after drop", "storage.convert", Convert(first, "F32"))
    _refused(stand, "dropped without being given", "storage.drop", Drop([_NEVER_GIVEN]))
    same = stand.read_bytes(stand.engine.call("storage.download", Handle(second))) == payload
    stand.equal("misused/its neighbour is whole", expected=True, observed=same)
    stand.engine.call("storage.drop", Drop([second]))


def observe_closed_devices(stand: Stand) -> None:
    """Observe `misused/<how>` for a device that was closed, and for a buffer that lay on it."""
    with stand.opened_device() as opened:
        device = Handle(opened.handle)
        freed = stand.engine.call("device.allocate", Allocate(device.handle, 4096))
        stand.engine.call("device.free", freed)
        _refused(stand, "freed twice", "device.free", freed)
        left = stand.engine.call("device.allocate", Allocate(device.handle, 4096))
    _refused(stand, "freed after its device was closed", "device.free", left)
    _refused(stand, "device closed twice", "device.close", device)
    _refused(stand, "closed device waited for", "device.synchronize", device)
    _refused(stand, "allocated on a closed device", "device.allocate", Allocate(device.handle, 4096))
    with stand.opened_device() as again:
        stand.equal("misused/serves on", expected=True, observed=small_product(stand, again.handle))


def _refused(stand: Stand, how: str, method: str, params: Message) -> None:
    """Beyond the criterion's words, so hardening; a process that dies of it is not, and ends the row."""
    try:
        stand.engine.call(method, params)
    except EngineRefused:
        observed = "refused"
    else:
        observed = "accepted"
    stand.equal(f"misused/{how}", expected="refused", observed=observed, hardening=True)
