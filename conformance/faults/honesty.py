"""An engine that says what is not so: which processor it used, what it has, and answers it never computed."""

from __future__ import annotations

import json
from typing import Any

from conformance.faults.planting import Plant, fault


@fault(
    expects={"F-INT-098": "used_gpu", "F-INT-100": "says_cpu"}, blast=("load", "qual", "build", "err"),
    seen_in="realizar 41c4ae01, aprender contract CPU-GPU-005",
)  # fmt: skip
def cpu_called_gpu(plant: Plant) -> None:
    """Whatever processor was used, the result says it was the GPU."""
    from reference_engine.model import SafeTensorsCudaModel

    plant.replace(SafeTensorsCudaModel, "used_gpu", lambda _original, _model: True)


@fault(expects={"F-INT-099": "backend_line", "F-INT-100": "backend_line"}, seen_in="realizar PMAT-115")
def backend_line_says_gpu(plant: Plant) -> None:
    """The verbose line names a GPU that there is not."""
    from reference_engine import cli

    plant.replace(cli, "_backend", lambda _original, _device: "Backend: GPU (NVIDIA H100, 81559 MB VRAM)")


@fault(expects={"F-INT-099": "backend_line"}, blast=("F-INT-100",), seen_in="aprender contract CPU-GPU-003")
def fallback_confessed_in_another_line(plant: Plant) -> None:
    """The line that should name the processor is a warning about the GPU instead."""
    from reference_engine import cli

    plant.replace(cli, "_backend", lambda _original, _device: "warning: GPU init failed, continuing")


@fault(expects={"F-INT-098": "used_gpu", "F-INT-100": "says_cpu"})
def used_gpu_is_a_wish(plant: Plant) -> None:
    """The JSON says whether the GPU was asked for or not forbidden, not whether it was used."""
    from reference_engine import cli

    def wished(original: Any, session: Any, result: Any) -> str:
        fields = json.loads(original(session, result))
        return json.dumps(fields | {"used_gpu": True}, ensure_ascii=False) + "\n"

    plant.replace(cli, "_as_json", wished)


@fault(expects={"F-CUDA-015": "count"}, blast=("cuda", "F-BUILD-001"))
def device_invented(plant: Plant) -> None:
    """A device is listed that the machine does not have."""
    from conformance.engines.reference_devices import DeviceMethods
    from conformance.protocol import messages as m

    def more(original: Any, engine: Any, params: Any) -> Any:
        listed = original(engine, params).devices
        return m.DeviceList([*listed, m.DeviceInfo(len(listed), "NVIDIA H100 80GB HBM3", 80 << 30)])

    plant.replace(DeviceMethods, "device_list", more)


@fault(expects={"F-CUDA-014": "positive"}, blast=("cuda",))
def memory_reported_as_zero(plant: Plant) -> None:
    """The device is said to have no memory."""
    from reference_engine.device import Device

    plant.replace(Device, "memory", lambda original, device: (original(device)[0], 0))


@fault(expects={"F-CUDA-013": "non_empty"}, blast=("cuda",))
def device_without_a_name(plant: Plant) -> None:
    """The device's name is empty."""
    from reference_engine.device import Device

    plant.replace(Device, "name", lambda _original, _device: "")


@fault(expects={"F-QUAL-066": "ids", "F-QUAL-067": "ids"}, blast=("qual", "load", "int", "build", "perf"),
       seen_in="aprender#340")  # fmt: skip
def tokens_are_made_up(plant: Plant) -> None:
    """Every id is the one before it plus one; nothing is computed."""
    from reference_engine import generate

    def counted(_original: Any, decoding: Any, request: Any, limit: int, _every: Any) -> Any:
        last = request.prompt_ids[-1]
        yield from ((last + step) % (decoding.id_limit or 512) for step in range(1, limit + 1))

    plant.replace(generate, "_greedy_ids", counted)


@fault(expects={"F-QUAL-074": "ids", "F-QUAL-080": "ids"}, blast=("qual", "load", "int", "build", "perf"),
       seen_in="mistral.rs#126, FastFlowLM#542")  # fmt: skip
def former_answer_repeated(plant: Plant) -> None:
    """From its second request on a model gives the answer of its first."""
    from reference_engine.engine import Engine

    def repeating(original: Any, engine: Any, request: Any, on_text: Any = None) -> Any:
        if not hasattr(engine, "first_answer"):
            engine.first_answer = original(engine, request, on_text)
        return engine.first_answer

    plant.replace(Engine, "infer", repeating)


@fault(expects={"F-PERF-085": "positions"}, blast=("perf",))
def positions_made_up(plant: Plant) -> None:
    """The count of positions that went through the model is that of a cache, whatever was computed."""
    from dataclasses import replace

    from reference_engine.engine import Engine

    def counting(original: Any, engine: Any, request: Any, on_text: Any = None) -> Any:
        result = original(engine, request, on_text)
        return replace(result, positions=0) if hasattr(result, "__dataclass_fields__") else result._replace(positions=0)

    plant.replace(Engine, "infer", counting)
