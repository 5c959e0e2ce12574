"""Copies of the engine's process as our own CUPTI library saw them: asynchronous, page-locked, not waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from checks.support.tensors import bits_of, host_tensor, write_safetensors
from conformance.observations import Undecided
from conformance.probes import copies
from conformance.protocol.client import Engine
from conformance.protocol.messages import Drop, Generate, LoadFile, ModelLoad, Upload
from conformance.trial.launching import launch_of
from conformance.trial.stand import NotTried, Stand

_UPLOADS, _UPLOAD_BYTES = 4, 32 * 1024 * 1024
_FILE_TENSORS, _TENSOR_BYTES = 24, 8 * 1024 * 1024
SHORT, LONG = 4, 36
Spans = dict[str, tuple[int, int]]


def observe_copies(stand: Stand) -> None:
    """Observe how host-to-device copies of uploading, of loading and of decoding were made.

    Raises:
        NotTried: the witness cannot be built here, or CUPTI does not serve it.
    """
    output = stand.directory / "copies.txt"
    try:
        library = copies.build(stand.directory)
        sent, spans = _watched(stand, {copies.LIBRARY_VARIABLE: str(library), copies.OUTPUT_VARIABLE: str(output)})
        trace = copies.read_trace(output)
    except copies.WitnessUnavailable as error:
        raise NotTried(str(error)) from error
    stand.attach(output)
    observe_trace(stand, trace.to_device(), sent, spans)


def observe_trace(stand: Stand, trace: copies.Trace, sent: dict[str, int], spans: Spans) -> None:
    """Judge-ready numbers of each operation: `sent` bytes went to the device in it, within its span of time."""
    if not trace.complete:
        stand.observe(Undecided(name="seen", reason="the witness of copies lost records"))
    for name, nbytes in sent.items():
        part = trace.between(*spans[name])
        seen = sum(copy.nbytes for copy in part.copies)
        note = f"{len(part.copies)} copies, {seen} bytes"
        stand.measured(f"seen/{name}", seen / nbytes, "of the bytes sent", note=note)
        stand.measured(f"asynchronous/{name}", copies.asynchronous_share(part), "of the bytes", note=note)
        stand.measured(f"pinned/{name}", copies.pinned_share(part), "of the bytes", note=note)
        stand.measured(f"awaited/{name}", copies.awaited_share(part), "of the bytes", note=note)
    few, many = (
        sum(copy.nbytes for copy in trace.between(*spans[name]).copies) for name in ("decode_short", "decode_long")
    )
    stand.measured("decode_step", max(0.0, (many - few) / (LONG - SHORT)), "B/token", hardening=True)


def _watched(stand: Stand, witness: dict[str, str]) -> tuple[dict[str, int], Spans]:
    """Upload, load and decode in a process that the witness lives in; bytes sent and span of each operation."""
    launch = launch_of(stand.manifest, stand.plan)
    spans: Spans = {}

    def timed(name: str, operation: Callable[[], None]) -> None:
        began = time.monotonic_ns()
        operation()
        spans[name] = (began, time.monotonic_ns())

    with Engine(replace(launch, env=launch.env | witness)) as engine:
        with stand.opened_device_of(engine) as device:
            _transfer(stand, engine, device.handle, timed)
        weights = _decode(stand, engine, timed)
    sent = {"upload": _UPLOADS * _UPLOAD_BYTES, "file": _FILE_TENSORS * _TENSOR_BYTES, "model": weights}
    return sent, spans


def _transfer(stand: Stand, engine: Engine, device: int, timed: Callable[[str, Callable[[], None]], None]) -> None:
    """Upload through the pinned path, and load a file of many tensors."""
    floats = _UPLOAD_BYTES // 4
    hosts = [host_tensor(stand, "F32", [floats], bits_of("F32", floats, stand.random)) for _ in range(_UPLOADS)]
    tensors = {
        f"layer.{index}.weight": ("F32", [_TENSOR_BYTES // 4], bits_of("F32", _TENSOR_BYTES // 4, stand.random))
        for index in range(_FILE_TENSORS)
    }
    file = write_safetensors(stand.directory / "many.safetensors", tensors)
    held: list[int] = []

    def upload() -> None:
        held.extend(engine.call("storage.upload", Upload(device, hosts, pinned=True)).handles)

    def load() -> None:
        loaded = engine.call("storage.load_file", LoadFile(device, str(file)))
        held.extend(stored.handle for stored in loaded.tensors.values())

    timed("upload", upload)
    timed("file", load)
    engine.call("storage.drop", Drop(held))


def _decode(stand: Stand, engine: Engine, timed: Callable[[str, Callable[[], None]], None]) -> int:
    """Load the model on trial and decode two lengths, after one that warms up; the bytes of its weights."""
    prompt = list(range(1, 17))
    loaded = []

    def load() -> None:
        loaded.append(engine.call("model.load", ModelLoad(str(stand.model_directory), stand.model_device)))

    timed("model", load)
    for name, count in (("warm_up", LONG), ("decode_short", SHORT), ("decode_long", LONG)):
        request = Generate(loaded[0].handle, count, prompt_ids=prompt, ignore_eos=True)
        timed(name, lambda request=request: engine.call("generate", request))  # type: ignore[misc]
    return int(loaded[0].weight_bytes)
