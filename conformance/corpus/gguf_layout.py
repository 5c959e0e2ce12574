"""How GGUF names and lays out the tensors of the architectures qwen2 and llama."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

Array = npt.NDArray[Any]


def name_pairs(layers: int) -> dict[str, str]:
    """Module names of a checkpoint with so many layers, and GGUF's names for them, both without suffix."""
    pairs = dict(_OUTSIDE)
    for layer in range(layers):
        pairs |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in _IN_LAYER.items()}
    return pairs


def gguf_name(name: str, layers: int) -> str:
    """GGUF's name of a checkpoint tensor; KeyError if it has none."""
    module, suffix = name.rsplit(".", 1)
    return f"{name_pairs(layers)[module]}.{suffix}"


def checkpoint_name(name: str, layers: int) -> str:
    """The checkpoint's name of a GGUF tensor; KeyError if it has none."""
    module, suffix = name.rsplit(".", 1)
    return f"{ {theirs: ours for ours, theirs in name_pairs(layers).items()}[module] }.{suffix}"


def heads_to_permute(name: str, architecture: str, heads: int, kv_heads: int) -> int:
    """How many heads' rows of a checkpoint tensor llama.cpp keeps in adjacent-pair order; 0 if it keeps ours.

    The architecture llama rotates neighbouring rows; rotate-half checkpoints are reordered for it. qwen2 is not.
    """
    if architecture != "llama":
        return 0
    if ".q_proj." in name:
        return heads
    return kv_heads if ".k_proj." in name else 0


def interleave(values: Array, heads: int) -> Array:
    """Rows [heads x dim, ...] from rotate-half order to adjacent pairs."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def deinterleave(values: Array, heads: int) -> Array:
    """The inverse of `interleave`."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))
