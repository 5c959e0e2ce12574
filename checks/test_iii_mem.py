"""III. Memory Transfer: bitwise, resident on the device, in any alignment, freed, and at the link's speed."""

from __future__ import annotations

from checks.support.copying import observe_copies
from checks.support.devices import witness_memory
from checks.support.growing import grown_by_models, grown_by_uploads, source_of
from checks.support.misuse import observe_dropped_storages
from checks.support.pool import sample
from checks.support.tensors import (
    PATTERN_CLASSES,
    bits_of,
    every_half_pattern,
    host_tensor,
    special_values,
    write_safetensors,
)
from checks.support.timing import link_rates
from checks.support.transfer import Payload, round_trip, uploaded
from conformance.observations import Sample
from conformance.protocol.messages import Account, Capability, Drop, Handle, LoadFile, StoredTensor, Upload
from conformance.trial.stand import Stand

KIB, MIB = 1024, 1024 * 1024
_SMALL_MODEL = 100 * MIB


def test_f_mem_021(stand: Stand) -> None:
    round_trip(stand, {"1KB": Payload("F32", [256], bits_of("F32", 256, stand.random))})


def test_f_mem_022(stand: Stand) -> None:
    count = (1024 if stand.gpu else 64) * MIB // 4
    round_trip(stand, {"1GB": Payload("F32", [count], bits_of("F32", count, stand.random))})


def test_f_mem_023(stand: Stand) -> None:
    shapes = ([0], [0, 7], [7, 0], [3, 0, 5])
    empty = {f"{dtype}/{shape}": Payload(dtype, shape, b"") for dtype in ("F32", "F16", "BF16") for shape in shapes}
    round_trip(stand, empty | {"beside": Payload("F32", [3], bits_of("F32", 3, stand.random))})


def test_f_mem_024(stand: Stand) -> None:
    sizes = (1, 2, 3, 31, 255, 4097, 1_000_003)
    round_trip(stand, {f"{n}": Payload("F32", [n], bits_of("F32", n, stand.random)) for n in sizes})


def test_f_mem_025(stand: Stand) -> None:
    values = {name: Payload("F32", [len(bits) // 4], bits) for name, bits in special_values("F32").items()}
    noise = Payload("F32", [MIB], bits_of("F32", MIB, stand.random))
    round_trip(stand, values | {"random bits": noise})
    stand.equal("classes", expected=sorted(PATTERN_CLASSES), observed=sorted(values))


def test_f_mem_026(stand: Stand) -> None:
    round_trip(stand, {"all 65,536 patterns": Payload("F16", [256, 256], every_half_pattern(stand.random))})


def test_f_mem_027(stand: Stand) -> None:
    round_trip(stand, {"all 65,536 patterns": Payload("BF16", [256, 256], every_half_pattern(stand.random))})


def test_f_mem_028(stand: Stand) -> None:
    with stand.opened_device() as device:
        for offset in range(8):
            tensors = {
                f"{dtype}.{count}": (dtype, [count], bits_of(dtype, count, stand.random))
                for dtype, count in (("F16", 5), ("F32", 33), ("BF16", 7), ("F32", 1))
            }
            path = write_safetensors(stand.directory / f"offset-{offset}.safetensors", tensors, data_start=offset)
            loaded = stand.engine.call("storage.load_file", LoadFile(device.handle, str(path)))
            observed = {
                name: stand.read_bytes(stand.engine.call("storage.download", Handle(stored.handle))).hex()
                for name, stored in loaded.tensors.items()
            }
            expected = {name: payload.hex() for name, (_, _, payload) in tensors.items()}
            stand.equal(f"same_bytes/{offset}", expected=expected, observed=observed)
            stand.engine.call("storage.drop", Drop([stored.handle for stored in loaded.tensors.values()]))


def test_f_mem_029(stand: Stand) -> None:
    if not stand.needs_gpu("bandwidth"):
        return
    link = link_rates(stand)
    values = sample(stand, "bandwidth", lambda run: run["pinned_rate"])
    stand.observe(Sample(name="bandwidth", values=values, unit="B/s", context=link))


def test_f_mem_030(stand: Stand) -> None:
    count = (8 if stand.gpu else 1) * MIB // 4
    with stand.opened_device() as device:
        for pinned in (False, True):
            # Windows of one random text, each 4 KiB further: no byte of two of them is the same but by chance.
            noise = bits_of("F32", count + 32 * KIB, stand.random)
            payloads = [noise[4 * KIB * turn :][: 4 * count] for turn in range(32)]
            sent = [host_tensor(stand, "F32", [count], payload) for payload in payloads]
            asked = [Upload(device.handle, [one], pinned, asynchronous=True) for one in sent]
            handles = [uploaded(stand, each) for each in asked]
            stand.engine.call("device.synchronize", Handle(device.handle))
            wrong = [
                index
                for index, (handle, payload) in enumerate(zip(handles, payloads, strict=True))
                if stand.read_bytes(stand.engine.call("storage.download", Handle(handle))) != payload
            ]
            kind = "pinned" if pinned else "pageable"
            stand.equal(f"wrong_after_sync/{kind}", expected=[], observed=wrong, note=f"{len(sent)} uploads")
            stand.engine.call("storage.drop", Drop(handles))


def test_f_mem_031(stand: Stand) -> None:
    kinds = ("F32", "F16", "BF16")
    tensors = {}
    for index in range(1000):
        dtype, count = kinds[index % 3], stand.random.randrange(1, 4000)
        tensors[f"layer.{index}.weight"] = (dtype, [count], bits_of(dtype, count, stand.random))
    one = write_safetensors(stand.directory / "one.safetensors", tensors)
    names = list(tensors)
    several = [
        write_safetensors(stand.directory / f"part-{part}.safetensors", {n: tensors[n] for n in names[part::7]})
        for part in range(7)
    ]
    with stand.opened_device() as device:
        for case, files in (("one_file", [one]), ("several_files", several)):
            stored: dict[str, StoredTensor] = {}
            for file in files:
                stored |= stand.engine.call("storage.load_file", LoadFile(device.handle, str(file))).tensors
            order = stand.random.sample(names, len(names))
            wrong = [
                name
                for name in order
                if name not in stored
                or stand.read_bytes(stand.engine.call("storage.download", Handle(stored[name].handle)))
                != tensors[name][2]
            ]
            stand.equal(f"count/{case}", expected=len(names), observed=len(stored))
            stand.equal(f"wrong/{case}", expected=[], observed=wrong[:20])
            stand.engine.call("storage.drop", Drop([tensor.handle for tensor in stored.values()]))


def test_f_mem_032(stand: Stand) -> None:
    with stand.opened_device() as device:
        sent = source_of(stand, (128 if stand.gpu else 16) * MIB)
        stand.observe(grown_by_uploads(stand, sent, device.handle))
        last = uploaded(stand, Upload(device.handle, [sent]))
        arrived = stand.engine.call("storage.download", Handle(last))
        stand.equal("uploads/arrived", expected=sent.sha256, observed=arrived.sha256, note="what was cycled is real")
        observe_dropped_storages(stand, device.handle)
    if Capability.MODEL in stand.engine.info.capabilities and stand.plan.model.nbytes <= _SMALL_MODEL:
        stand.observe(grown_by_models(stand))


def test_f_mem_033(stand: Stand) -> None:
    round_trip(stand, {"pinned": Payload("F32", [MIB], bits_of("F32", MIB, stand.random))}, pinned=True)
    if not stand.needs_gpu("ratio_to_pageable"):
        return
    pageable = link_rates(stand)["pageable"]
    rates = sample(stand, "ratio_to_pageable", lambda run: run["pinned_rate"] / pageable)
    stand.observe(Sample(name="ratio_to_pageable", values=rates, unit="x", context={"pageable": pageable}))


def test_f_mem_034(stand: Stand) -> None:
    if stand.needs_gpu("seen", "asynchronous", "pinned", "awaited", "decode_step"):
        observe_copies(stand)


def test_f_mem_035(stand: Stand) -> None:
    with stand.opened_device() as device:
        start: Account = stand.engine.call("storage.account", Handle(device.handle))
        seen_at_start = witness_memory(stand)
        live: dict[int, int] = {}
        for count in [stand.random.randrange(1, 8 * MIB) for _ in range(24)]:
            sent = host_tensor(stand, "F16", [count], stand.random.randbytes(2 * count))
            live[uploaded(stand, Upload(device.handle, [sent]))] = 2 * count
        for handle in stand.random.sample(sorted(live), 8):
            stand.engine.call("storage.drop", Drop([handle]))
            del live[handle]
        now: Account = stand.engine.call("storage.account", Handle(device.handle))
        stand.equal("count", expected=len(live), observed=now.live_count - start.live_count)
        off = abs(now.live_bytes - start.live_bytes - sum(live.values()))
        stand.equal(
            "within_rounding", expected=True, observed=off <= len(live) * now.rounding_bytes, note=f"{off} bytes"
        )
        stand.measured("rounding", now.rounding_bytes, "B")
        if stand.needs_gpu("account_to_nvml"):
            risen = witness_memory(stand) - seen_at_start
            stand.measured("account_to_nvml", (sum(live.values()) - risen) / sum(live.values()), "share unseen by NVML")
        stand.engine.call("storage.drop", Drop(list(live)))
        end: Account = stand.engine.call("storage.account", Handle(device.handle))
        stand.equal("back_to_start", expected=start.live_bytes, observed=end.live_bytes)
