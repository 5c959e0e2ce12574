"""Healthy variants: engines and checkpoints that differ from the reference and are right. No check may fail one.

Those of the process are planted as faults are, and expect no kill; those of the checkpoint are other files with the
same answers.
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conformance.corpus.variants import derive
from conformance.faults.planting import Plant, fault


def _linear(plant: Plant, product: Callable[[Any, Any, Any], Any]) -> None:
    """Multiply by weights in another way: `product(x, weight, bias)`."""
    from torch.nn import functional

    plant.replace(functional, "linear", lambda _original, x, weight, bias=None: product(x, weight, bias))


@fault(expects={})
def summed_in_another_order(plant: Plant) -> None:
    """Products are summed in two halves, the second first."""

    def halves(x: Any, weight: Any, bias: Any) -> Any:
        middle = weight.shape[1] // 2
        total = x[..., middle:] @ weight[:, middle:].T + x[..., :middle] @ weight[:, :middle].T
        return total if bias is None else total + bias

    _linear(plant, halves)


@fault(expects={})
def halves_accumulated_in_f32(plant: Plant) -> None:
    """Products of F16 and BF16 are computed in F32 and rounded once."""

    def wide(x: Any, weight: Any, bias: Any) -> Any:
        total = x.float() @ weight.float().T
        return (total if bias is None else total + bias.float()).to(x.dtype)

    _linear(plant, wide)


@fault(expects={})
def columns_computed_in_shards(plant: Plant) -> None:
    """Every product is computed in three shards of its columns."""
    import torch

    def sharded(x: Any, weight: Any, bias: Any) -> Any:
        whole = torch.cat([x @ part.T for part in weight.chunk(3)], dim=-1)
        return whole if bias is None else whole + bias

    _linear(plant, sharded)


@fault(expects={})
def prefill_in_chunks(plant: Plant) -> None:
    """Prompts are fed in chunks of seven tokens."""
    from reference_engine import model

    model.PREFILL_CHUNK = 7
    plant.replace(model.SafeTensorsCudaModel, "prefill", lambda original, *given, **named: original(*given, **named))


@fault(expects={})
def eager_instead_of_graphs(plant: Plant) -> None:
    """Steps are never captured, and each id is looked at before the next step."""
    from reference_engine import decode

    def eager(original: Any, decoder: Any, *_given: Any, **_named: Any) -> None:
        original(decoder, graphs=False, read_every=1)

    plant.replace(decode.Decoder, "__init__", eager)


@fault(expects={})
def more_threads(plant: Plant) -> None:
    """Two threads compute where one is asked for."""
    import torch

    torch.set_num_threads(2)
    plant.replace(torch, "set_num_threads", lambda original, _count: original(2))


@fault(expects={})
def norm_by_hand(plant: Plant) -> None:
    """RMSNorm is composed of elementary operations, in F32."""
    from reference_engine.model import SafeTensorsCudaModel

    def composed(_original: Any, model: Any, x: Any, weight: Any) -> Any:
        wide = x.float()
        scale = (wide.square().mean(dim=-1, keepdim=True) + model.config.rms_norm_eps).rsqrt()
        return (wide * scale).to(x.dtype) * weight

    plant.replace(SafeTensorsCudaModel, "_norm", composed)


@fault(expects={})
def rotary_angles_in_f64(plant: Plant) -> None:
    """Rotary factors are computed in F64 and rounded."""
    import torch

    from reference_engine import model

    def exact(_original: Any, config: Any) -> Any:
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
        return (1.0 / config.rope_theta**exponents).float()

    plant.replace(model, "inverse_frequencies", exact)


@fault(expects={})
def gate_multiplied_last(plant: Plant) -> None:
    """SwiGLU multiplies in the other order and in no place."""
    from torch.nn import functional

    from reference_engine import model

    def other(_original: Any, x: Any, layer: Any) -> Any:
        gate, up = functional.linear(x, layer.gate_up).chunk(2, dim=-1)
        return up * (gate * gate.sigmoid())

    plant.replace(model, "_swiglu", other)


@fault(expects={})
def log_on_stderr(plant: Plant) -> None:
    """The driver logs every file it opens and every request, at length, on standard error, and prints beside it."""
    from reference_engine import checkpoint, files
    from reference_engine.engine import Engine

    def told(original: Any, *given: Any, **named: Any) -> Any:
        sys.stderr.write("INFO " + "still working, all is well; " * 40 + "\n")
        return original(*given, **named)

    plant.replace(files, "open_regular", told)
    plant.replace(checkpoint.Checkpoint, "__enter__", told)
    plant.replace(Engine, "infer", told)


@fault(expects={})
def files_read_in_small_pieces(plant: Plant) -> None:
    """A read returns at most 64 KiB."""
    from reference_engine import files

    files.READ_BYTES = 1 << 16
    plant.replace(files.TensorFile, "read_into", lambda original, *given: original(*given))


@fault(expects={})
def handles_of_another_kind(plant: Plant) -> None:
    """Handles are large numbers with gaps."""
    from conformance.engines.handles import HandleTable

    def held(original: Any, table: Any, thing: Any) -> int:
        table._last += 7919
        return int(original(table, thing))

    plant.replace(HandleTable, "hold", held)


@fault(expects={})
def errors_in_other_words(plant: Plant) -> None:
    """Every error is introduced by a sentence of its own, in another language."""
    from reference_engine.errors import EngineError

    plant.replace(EngineError, "__str__", lambda original, error: f"das ging nicht: {original(error)}")


@fault(expects={}, early=True)
def no_caching_allocator(plant: Plant) -> None:
    """Device memory is asked of the driver and given back at once."""
    import os

    os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    plant.ran()


@fault(expects={})
def attention_head_by_head(plant: Plant) -> None:
    """Attention scores are scaled before the product instead of after it."""
    import torch

    def scaled(_original: Any, _start: Any, queries: Any, keys: Any, *, beta: int, alpha: float) -> Any:
        del beta
        return (queries * alpha) @ keys

    plant.replace(torch, "baddbmm", scaled)


# --- checkpoints ------------------------------------------------------------------------------------------


def _rewritten(source: Path, target: Path, arrange: Callable[[dict[str, Any]], bytes]) -> Path:
    """A copy of the checkpoint with the same data behind another header."""
    shutil.copytree(source, target)
    file = target / "model.safetensors"
    raw = file.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = arrange(json.loads(raw[8 : 8 + size]))
    file.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + size :])
    return target


def _reordered(source: Path, target: Path) -> Path:
    return _rewritten(source, target, lambda header: json.dumps(dict(reversed(header.items()))).encode())


def _padded(source: Path, target: Path) -> Path:
    return _rewritten(source, target, lambda header: json.dumps(header).encode() + b" " * 4097)


def _described(source: Path, target: Path) -> Path:
    return _rewritten(source, target, lambda header: json.dumps({"__metadata__": {"format": "pt"}, **header}).encode())


def _derived(variant: str) -> Callable[[Path, Path], Path]:
    return lambda source, _target: derive(source, variant)


CHECKPOINTS: dict[str, Callable[[Path, Path], Path]] = {
    "reordered-header-keys": _reordered,
    "padded-header-of-odd-length": _padded,
    "metadata-in-front": _described,
    "shards": _derived("sharded"),
    "untied-copy-of-the-head": _derived("untied"),
    "larger-vocabulary-padding": _derived("extended"),
}
"""How each other checkpoint is made of the one on trial: `make(source, new directory)`."""
