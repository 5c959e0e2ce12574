"""Seeded random weights for a Qwen2 shape: the same bits on every machine, in any order, on any threads.

Values come from PCG64 through integers and one multiplication alone, for library functions like exp and log
differ between machines in the last bit. Each block of a tensor has its own stream.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from conformance.corpus.weights_file import Piece, TensorPlan

BLOCK = 1 << 22


@dataclass(frozen=True)
class Spread:
    """A uniform distribution: mean and standard deviation."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Gains:
    """Standard deviations of the weights; those of projections are divided by the root of their fan-in."""

    embedding: float
    query_key: float
    value: float
    output: float
    gate: float
    up: float
    down: float
    query_key_bias: float
    value_bias: float
    final_norm: float


def qwen2_plans(config: Mapping[str, Any], dtype: str = "F32") -> dict[str, TensorPlan]:
    """Names and shapes of every tensor of a tied Qwen2 checkpoint, from the fields of its config.json."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    in_layer = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.q_proj.bias": (hidden,),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.k_proj.bias": (kv,),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.v_proj.bias": (kv,),
        "self_attn.o_proj.weight": (hidden, hidden),
        "mlp.gate_proj.weight": (ffn, hidden),
        "mlp.up_proj.weight": (ffn, hidden),
        "mlp.down_proj.weight": (hidden, ffn),
    }
    for layer in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in in_layer.items()}
    return {name: TensorPlan(dtype, shape) for name, shape in shapes.items()}


def spread(name: str, shape: tuple[int, ...], gains: Gains) -> Spread:
    """From which distribution a tensor is drawn."""
    if name == "model.norm.weight":
        return Spread(gains.final_norm, 0.2)
    if name.endswith("layernorm.weight"):
        return Spread(1.0, 0.2)
    if name == "model.embed_tokens.weight":
        return Spread(0.0, gains.embedding)
    if name.endswith(".bias"):
        return Spread(0.0, gains.value_bias if "v_proj" in name else gains.query_key_bias)
    of_projection = {
        "q_proj": gains.query_key,
        "k_proj": gains.query_key,
        "v_proj": gains.value,
        "o_proj": gains.output,
        "gate_proj": gains.gate,
        "up_proj": gains.up,
        "down_proj": gains.down,
    }
    return Spread(0.0, of_projection[name.split(".")[-2]] / math.sqrt(shape[1]))


def seeded_pieces(plans: Mapping[str, TensorPlan], gains: Gains, seed: int) -> Iterator[Callable[[], Piece]]:
    """Work for `write_weights`: every block of every tensor, largest tensors first; BF16 is rounded from F32."""
    for name, plan in sorted(plans.items(), key=lambda item: -item[1].nbytes):
        for start in range(0, math.prod(plan.shape), BLOCK):
            yield _piece(name, plan, start, spread(name, plan.shape, gains), seed)


def _piece(name: str, plan: TensorPlan, start: int, drawn_from: Spread, seed: int) -> Callable[[], Piece]:
    def make() -> Piece:
        count = min(BLOCK, math.prod(plan.shape) - start)
        values = seeded_values(name, start // BLOCK, count, drawn_from, seed)
        return Piece(name, start, to_bf16(values) if plan.dtype == "BF16" else values)

    return make


def seeded_values(name: str, block: int, count: int, drawn_from: Spread, seed: int) -> npt.NDArray[np.float32]:
    """The first `count` values of a block of a tensor, F32."""
    stream = np.random.SeedSequence([seed, zlib.crc32(name.encode()), block])
    values = np.random.Generator(np.random.PCG64(stream)).random(count, dtype=np.float32)
    values -= np.float32(0.5)
    values *= np.float32(drawn_from.deviation * math.sqrt(12))
    if drawn_from.mean:
        values += np.float32(drawn_from.mean)
    return values


def to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """BF16 bits of finite F32 values, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)


def from_bf16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """F32 values of BF16 bits, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
