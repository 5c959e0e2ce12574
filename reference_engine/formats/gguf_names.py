"""GGUF's names and row orders for the tensors of Qwen2 and Llama checkpoints.

llama.cpp rotates neighbouring rows of a llama's queries and keys, checkpoints rotate halves: its converter reorders
the rows of each head, ours from (half, place) to (place, half). Qwen2 is rotated in halves there too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from reference_engine.config import LLAMA, QWEN2

ARCHITECTURES = {"qwen2": QWEN2, "llama": LLAMA}
_MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = ("token_embd", "output_norm", "output")
_GGUF = re.compile(r"(?:blk\.(0|[1-9][0-9]{0,5})\.)?([a-z_]+)\.(weight|bias)")
_OURS = re.compile(r"(?:model\.layers\.(0|[1-9][0-9]{0,5})\.)?([a-z_.]+)\.(weight|bias)")
_THEIRS = {ours: theirs for theirs, ours in _MODULES.items()}


def checkpoint_name(name: str) -> str | None:
    """The checkpoint's name of a GGUF tensor; None if it has no place in these models."""
    match = _GGUF.fullmatch(name)
    if match is None or match[2] not in _MODULES or (match[1] is None) != (match[2] in _OUTSIDE):
        return None
    layer = "" if match[1] is None else f"model.layers.{match[1]}."
    return f"{layer}{_MODULES[match[2]]}.{match[3]}"


def gguf_name(name: str) -> str | None:
    """GGUF's name of a checkpoint tensor; None if it has none."""
    match = _OURS.fullmatch(name)
    if match is None or match[2] not in _THEIRS or (match[1] is None) != (_THEIRS[match[2]] in _OUTSIDE):
        return None
    layer = "" if match[1] is None else f"blk.{match[1]}."
    return f"{layer}{_THEIRS[match[2]]}.{match[3]}"


def reordered_heads(architecture: str, name: str, heads: int, kv_heads: int) -> int:
    """Into how many heads a checkpoint tensor's rows are divided and reordered in GGUF; 0 if they are not."""
    if ARCHITECTURES[architecture] != LLAMA:
        return 0
    return heads if ".q_proj." in name else kv_heads if ".k_proj." in name else 0


class Reordered(NamedTuple):
    """A tensor whose rows a GGUF file keeps in llama.cpp's order; offsets count from the file's begin."""

    begin: int
    end: int
    head_rows: int
    row_bytes: int

    def place(self, offset: int) -> tuple[int, int]:
        """Where the file keeps the byte at `offset` of the checkpoint's order, and how many follow it there."""
        row, within = divmod(offset - self.begin, self.row_bytes)
        head, rest = divmod(row, self.head_rows)
        half, place = divmod(rest, self.head_rows // 2)
        stored = head * self.head_rows + 2 * place + half
        return self.begin + stored * self.row_bytes + within, self.row_bytes - within
