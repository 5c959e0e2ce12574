"""A checkpoint as an APR v2 file, from the format's description alone: the second opinion on what engines read.

As in the importer that the format comes from, a tied head is written out, and names are sorted bytewise. Tensors lie
in the order of the checkpoint and not of the index, as its streaming writer leaves them: readers must use offsets.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

from conformance.corpus.checkpoint import CheckpointInvalid, read_json
from conformance.corpus.gguf_writing import pre_tokenizer, rope_theta, token_lists
from conformance.corpus.weights_file import Array

APR_NAME = "model.apr"
ROW_MAJOR, HAS_VOCAB = 0x400, 0x200
_CODES = {"F32": 0, "F16": 1, "BF16": 30}
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_NEOX_HALVES = 2


def write_apr(path: Path, source: Path, tensors: dict[str, tuple[str, Array]]) -> None:
    """Write an APR file.

    Args:
        path: The file to write.
        source: The checkpoint directory; its config, tokenizer and template become metadata.
        tensors: dtype and values by name, BF16 as uint16 bits.

    Raises:
        CheckpointInvalid: The architecture is neither qwen2 nor llama, or the tokenizer is no byte-level BPE.
    """
    config = read_json(source / "config.json")
    if config.get("tie_word_embeddings") and _HEAD not in tensors:
        tensors = tensors | {_HEAD: tensors[_EMBEDDING]}
    metadata = json.dumps(_metadata(source, config)).encode()
    data, entries = bytearray(), {}
    for name, (dtype, values) in tensors.items():
        payload = values.tobytes()
        entries[name.encode()] = struct.pack(f"<BB{values.ndim}QQQ", _CODES[dtype], values.ndim, *values.shape,
                                             len(data), len(payload))  # fmt: skip
        data += _padded(payload)
    index = b"".join(struct.pack("<H", len(name)) + name + entries[name] for name in sorted(entries))
    flags = ROW_MAJOR | (HAS_VOCAB if (source / "tokenizer.json").is_file() else 0)
    body = assemble(flags, len(entries), metadata, index, bytes(data))
    path.write_bytes(body)


def assemble(flags: int, count: int, metadata: bytes, index: bytes, data: bytes) -> bytes:
    """The file of these parts: header with its checksum, parts padded to 64, and the checksum of all."""
    index_offset = 64 + len(_padded(metadata))
    data_offset = index_offset + len(_padded(index))
    before = b"APR\0" + struct.pack("<BBHIQIQQ", 2, 0, flags, count, 64, len(metadata), index_offset, data_offset)
    header = before + struct.pack("<I", zlib.crc32(before + bytes(20))) + bytes(20)
    body = header + _padded(metadata) + _padded(index) + data
    return body + struct.pack("<I", zlib.crc32(body))


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 64)


def _metadata(source: Path, config: dict[str, Any]) -> dict[str, Any]:
    architecture = config.get("model_type")
    if architecture not in {"qwen2", "llama"}:
        raise CheckpointInvalid(source, f"model_type {architecture!r} is neither qwen2 nor llama")
    heads = config["num_attention_heads"]
    values = {
        "model_type": architecture,
        "name": None,
        "original_format": "safetensors",
        "architecture": architecture,
        "hf_architecture": config["architectures"][0],
        "hf_model_type": architecture,
        "hidden_size": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": heads,
        "num_kv_heads": config.get("num_key_value_heads") or heads,
        "vocab_size": config["vocab_size"],
        "intermediate_size": config["intermediate_size"],
        "max_position_embeddings": config["max_position_embeddings"],
        "rope_theta": rope_theta(config),
        "rope_type": _NEOX_HALVES,
        "rms_norm_eps": config["rms_norm_eps"],
        "head_dim": config.get("head_dim"),
        "tied_embeddings": bool(config.get("tie_word_embeddings")),
    }
    return values | _tokenizer(source, config)


def _tokenizer(source: Path, config: dict[str, Any]) -> dict[str, Any]:
    path = source / "tokenizer.json"
    if not path.is_file():
        return {}
    content = read_json(path)
    tokens, types, merges = token_lists(path, content, config["vocab_size"])
    ends, generation = config.get("eos_token_id"), source / "generation_config.json"
    if generation.is_file():
        ends = read_json(generation).get("eos_token_id", ends)
    return {
        "tokenizer.vocabulary": tokens,
        "tokenizer.vocab_size": len(tokens),
        "tokenizer.merges": merges,
        "tokenizer.token_type": [int(kind) for kind in types],
        "tokenizer.pre_type": pre_tokenizer(content),
        "tokenizer.model_type": "BPE",
        "tokenizer.bos_token_id": config.get("bos_token_id"),
        "tokenizer.eos_token_id": ends[0] if isinstance(ends, list) and ends else ends,
        "eos_token_id": ends,
        "chat_template": _template(source),
    }


def _template(source: Path) -> str | None:
    settings, template = source / "tokenizer_config.json", source / "chat_template.jinja"
    if template.is_file():
        return template.read_text(encoding="utf-8")
    found = read_json(settings).get("chat_template") if settings.is_file() else None
    return found if isinstance(found, str) else None
