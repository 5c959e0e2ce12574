"""Small valid GGUF and APR files, and how to make them invalid in one place."""

from __future__ import annotations

import json
import struct

import numpy as np
from gguf import GGUFWriter

from conformance.corpus.apr_writing import assemble

METADATA = {
    "architecture": "qwen2",
    "hidden_size": 4,
    "intermediate_size": 8,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "vocab_size": 3,
    "max_position_embeddings": 16,
    "rope_theta": 1e6,
    "rope_type": 2,
    "rms_norm_eps": 1e-6,
    "tied_embeddings": True,
    "tokenizer.vocabulary": ["a", "b", "<end>"],
    "tokenizer.token_type": [1, 1, 3],
    "tokenizer.merges": [],
    "tokenizer.pre_type": "qwen2",
    "tokenizer.eos_token_id": 2,
}
NAMES = ["model.embed_tokens.weight", "model.norm.weight"]


def entry(name, dtype=0, shape=(3, 4), offset=0, size=None):
    raw = name if isinstance(name, bytes) else name.encode()
    size = 4 * int(np.prod(shape)) if size is None else size
    head = struct.pack("<H", len(raw)) + raw
    return head + struct.pack(f"<BB{len(shape)}QQQ", dtype, len(shape), *shape, offset, size)


def index():
    return entry(NAMES[0]) + entry(NAMES[1], shape=(4,), offset=64)


def apr(metadata=None, entries=None, count=2, flags=0x600, data=bytes(128)):
    raw = metadata if isinstance(metadata, bytes) else json.dumps(METADATA | (metadata or {})).encode()
    return assemble(flags, count, raw, index() if entries is None else entries, data)


def write_gguf(path, *, without=(), **changed):
    """A one-layer Qwen2 of which only embedding and norm are there."""
    keys = {
        "block_count": 1, "context_length": 16, "embedding_length": 4, "feed_forward_length": 8,
        "attention.head_count": 2, "attention.head_count_kv": 1,
        "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6,
    } | changed  # fmt: skip
    writer = GGUFWriter(path, "qwen2")
    for key, value in keys.items():
        if key not in without:
            add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
            add(f"qwen2.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(["a", "b", "<end>"])
    writer.add_token_types([1, 1, 3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(2)
    writer.add_tensor("token_embd.weight", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("output_norm.weight", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_header(pairs=b"", pair_count=0, tensors=b"", tensor_count=0, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensor_count, pair_count) + pairs + tensors
